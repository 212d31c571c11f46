"""Reading a compiled TPU program: what counts, how often, and what carries no estimate."""

import tpu_program

PROGRAM = """HloModule jit_f

%inner (p: bf16[8,128]) -> bf16[8,128] {
  %not_run_alone = bf16[8,128]{1,0} add(%p, %p)
}

%body (arg: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %product = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x), calls=%inner, kind=kOutput, backend_config={"window_config":{"estimated_cycles":"100"}}
  %rows = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %i), kind=kCustom, calls=%gathering, backend_config={}
  ROOT %tuple = (s32[], bf16[8,128]) tuple(%n, %product)
}

ENTRY %main (x: bf16[8,128]) -> bf16[8,128] {
  %once = f32[8,128]{1,0} fusion(%x), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"7"}
  %loop = (s32[], bf16[8,128]) while(%init), condition=%until, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %exchange = (bf16[2,128]{1,0}, u32[]) all-to-all-start(%x), replica_groups={}
  %done = bf16[2,128]{1,0} all-to-all-done(%exchange)
  ROOT %sum = f32[8,128]{1,0} all-reduce(%once), to_apply=%inner
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_goes_round():
    assert tpu_program.summary(PROGRAM)["cycles"] == 7 + 5 * 100


def test_gathers_without_an_estimate_are_named_with_what_they_move():
    summary = tpu_program.summary(PROGRAM)
    assert summary["unpriced"] == 5
    assert summary["unpriced_bytes"] == 5 * 2 * (4 * 128 * 2)


def test_collectives_are_counted_once_with_their_dtype():
    assert tpu_program.summary(PROGRAM)["collectives"] == {
        "all-to-all bf16": 1,
        "all-reduce f32": 1,
    }
