from switchx.planning import environment

environment.prepare()  # before anything loads libtpu
