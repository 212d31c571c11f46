"""The switch layer alone at Switch-Base sizes in bfloat16, against the dense feed-forward."""

from gpu.common import arguments, out_of_time, write

CASES = [
    (experts, group, dispatcher)
    for experts in (8, 32, 128)
    for group, dispatcher in [(4096, "index"), (16384, "ragged"), (512, "einsum"), (4096, "einsum")]
]


def main() -> None:
    args = arguments(__doc__)
    import bench_layer  # JAX's platform is set now

    tokens, d_model, d_ff, product, rounds = 16384, 768, 3072, 8192, 20
    cases = CASES
    if args.tiny:
        tokens, d_model, d_ff, product, rounds = 64, 16, 32, 128, 2
        cases = [(4, 32, "index"), (4, 64, "ragged")]
    results: list[dict] = []
    for case in cases:
        if out_of_time(args):
            break
        results += bench_layer.compare(tokens, d_model, d_ff, [case], "bfloat16", rounds, product)
    write(args, "layer", tokens=tokens, d_model=d_model, d_ff=d_ff, results=results)


if __name__ == "__main__":
    main()
