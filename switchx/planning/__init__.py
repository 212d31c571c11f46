"""What will this run need, before it has a device?"""
