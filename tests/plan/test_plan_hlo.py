"""What compiled programs do, read from their text, against closed forms, XLA's own count, and slow transcriptions."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_programs import INNER, LAYERS, ROWS, WIDTH

from nmt.plan.hlo import analyse
from nmt.plan.hlo_flops import _seen, convolution_flops
from nmt.plan.hlo_groups import group_size
from nmt.plan.hlo_text import Array, bits, parse_instruction, parse_module, parse_shape

MATMUL = 2 * ROWS * WIDTH * WIDTH


def compiled(platform, out):
    flags = "--xla_force_host_platform_device_count=8"
    names = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5p-8"}
    subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "toy_programs.py"), platform, str(out)],
        env=os.environ | names | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        check=True,
        timeout=300,
    )
    texts = {path.stem: path.read_text() for path in out.glob("*.txt")}
    return texts, json.loads((out / "costs.json").read_text())


@pytest.fixture(scope="module", params=["cpu", "tpu"])
def programs(request, tmp_path_factory):
    """The texts of the programs, and XLA's counts of FLOPs and bytes."""
    if request.param == "tpu" and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is missing: pip install -e '.[tpu]'")
    return compiled(request.param, tmp_path_factory.mktemp(request.param))


# Programs


def test_flops_are_the_closed_form_with_trip_counts(programs):
    texts, _ = programs
    known = {
        "matmul": 2 * MATMUL,
        "batched": 3 * 2 * MATMUL,
        "scan": LAYERS * MATMUL,
        "nested": LAYERS * INNER * MATMUL,
        # On each of two halves of the rows, forward, and backward for both sides but the first layer's input.
        "gradient": 3 * LAYERS * MATMUL / 2,
        "exchange": 0,
    }
    found = {name: analyse(texts[name]) for name in known}
    assert {name: program.flops for name, program in found.items()} == known
    assert not any(program.notes for program in found.values())


def test_flops_and_bytes_agree_with_xla_where_there_are_no_loops(programs):
    texts, costs = programs
    for name in ("matmul", "batched"):
        program = analyse(texts[name])
        elementwise = 20 * 3 * ROWS * 2 * WIDTH  # tanh and its like, which XLA counts
        assert program.flops <= costs[name]["flops"] <= program.flops + elementwise
        assert program.bytes_accessed <= 1.1 * costs[name]["bytes accessed"]
        assert program.bytes_accessed >= 4 * (ROWS * WIDTH + 2 * WIDTH * WIDTH)  # the inputs at least


def test_xla_counts_a_loop_once_and_this_does_not(programs):
    texts, costs = programs
    assert costs["scan"]["flops"] < 2 * MATMUL
    assert analyse(texts["scan"]).flops == LAYERS * MATMUL


def test_a_scan_reads_each_layer_once(programs):
    texts, _ = programs
    weights, row = 4 * LAYERS * WIDTH * WIDTH, 4 * ROWS * WIDTH
    # Each layer reads a slice of the weights and the row, and writes a row; copies of these at most double it.
    assert weights <= analyse(texts["scan"]).bytes_accessed <= 3 * (weights + 4 * LAYERS * row)


def test_loops_of_unknown_length_are_said_to_be_so(programs):
    texts, _ = programs
    program = analyse(texts["unknown"])
    assert program.flops == MATMUL
    assert any("trip count not known" in note for note in program.notes)


def test_collectives_have_their_bytes_groups_and_names(programs):
    texts, _ = programs
    program = analyse(texts["exchange"])
    assert program.devices == 8
    block = 4 * (ROWS // 2) * (WIDTH // 4)
    found = {one.kind: one for one in program.collectives}
    assert len(found) == len(program.collectives) == 5
    facts = {kind: (one.payload_bytes, one.group_size, one.executions) for kind, one in found.items()}
    assert facts == {
        "all-to-all": (block, 4, 1),
        "all-gather": (2 * block, 2, 1),
        "reduce-scatter": (2 * block, 2, 1),
        "collective-permute": (block, 2, 1),
        "all-reduce": (block, 8, 1),
    }
    assert found["all-to-all"].sent_bytes == block * 3 / 4
    assert found["all-reduce"].sent_bytes == 2 * block * 7 / 8
    assert not any(one.trip_counts for one in program.collectives)
    for one in found.values():
        assert "shard_map" in one.op_name
        assert Path(one.source.rpartition(":")[0]).name == "toy_programs.py"


def test_collectives_in_loops_count_as_often_as_they_run(programs):
    texts, _ = programs
    program = analyse(texts["gradient"])
    (reduced,) = program.collectives
    # XLA may reduce each layer's gradient where it is made, or all of them after the loop.
    assert reduced.kind == "all-reduce"
    assert reduced.bytes == 4 * LAYERS * WIDTH * WIDTH
    assert reduced.group_size == 2
    assert reduced.trip_counts in ((), (LAYERS,))
    assert reduced.phase == "backward"
    assert program.per_layer(LAYERS, "all-reduce")["backward"] * LAYERS == reduced.executions
    assert program.totals() == {"all-reduce": (reduced.executions, reduced.bytes)}


# Text


DTYPES = {"pred": 1, "s8": 1, "u4": 0.5, "bf16": 2, "f16": 2, "f32": 4, "s64": 8, "c64": 8, "f8e4m3fn": 1}
LAYOUTS = ("", "{}", "{:T(128)}", "{1,0:T(8,128)(2,1)}", "{0:T(256)S(1)}", "{2,1,0:T(8,128)(2,1)S(3)}", "{:S(2)}")
arrays = st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 512), max_size=5), st.sampled_from(LAYOUTS))


def written(parts):
    return ", ".join(f"{dtype}[{','.join(map(str, dims))}]{layout}" for dtype, dims, layout in parts)


@given(st.lists(arrays, min_size=1, max_size=6))
def test_shapes_are_read_as_written(parts):
    for text in (written(parts), f"({written(parts)})", f"(({written(parts)}), u32[])"):
        found = parse_shape(text)[: len(parts)]
        assert [(a.dtype, list(a.dims)) for a in found] == [(dtype, dims) for dtype, dims, _ in parts]
        assert [a.bytes for a in found] == [math.ceil(math.prod(d) * DTYPES[t]) for t, d, _ in parts]
        assert [a.space for a in found] == [int(lay.partition("S(")[2].rstrip(")}") or 0) for *_, lay in parts]


def test_a_bounded_dimension_counts_as_its_bound():
    assert parse_shape("f32[<=8,2]") == (Array("f32", (8, 2)),)
    assert bits("token") == 0


@given(st.lists(arrays, min_size=1, max_size=4), st.lists(st.sampled_from("abc"), max_size=3), st.booleans())
def test_instructions_are_read_as_written(parts, operands, is_root):
    shape = written(parts) if len(parts) == 1 else f"({written(parts)})"
    given_names = ", ".join(f"%{name}.1" for name in operands)
    line = f"  {'ROOT ' if is_root else ''}%x.2 = {shape} all-reduce-start({given_names}), channel_id=3, dims={{1,2}}\n"
    found = parse_instruction(line)
    assert (found.name, found.opcode, found.is_root) == ("x.2", "all-reduce-start", is_root)
    assert found.operands == tuple(f"{name}.1" for name in operands)
    assert len(found.shape) == len(parts)
    assert (found.attribute("channel_id"), found.integers("dims"), found.integers("none")) == ("3", (1, 2), ())


def test_operands_may_come_with_their_shapes():
    found = parse_instruction("  %d = f32[2]{0:T(128)} add(f32[2]{0:T(128)} %a, f32[2]{0:T(128)} %b), metadata={}")
    assert found.operands == ("a", "b")


@pytest.mark.parametrize("text", ["", "module @jit_f {}", "HloModule x\n"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="HLO module"):
        parse_module(text)


# Groups


@given(st.data())
def test_the_size_of_groups_that_are_an_iota_is_that_of_a_row(data):
    over = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(over))))
    total = math.prod(over)
    groups = data.draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
    text = f"[{groups},{total // groups}]<=[{','.join(map(str, over))}]"
    if order != list(range(len(over))):
        text += f"T({','.join(map(str, order))})"
    assert group_size(f" replica_groups={text}, dimensions={{0}}", 99) == total // groups


@given(st.lists(st.lists(st.integers(0, 4095), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_size_of_listed_groups_is_that_of_the_first(groups):
    text = "{" + ",".join("{" + ",".join(map(str, group)) + "}" for group in groups) + "}"
    assert group_size(f" channel_id=1, replica_groups={text}, use_global_device_ids=true", 99) == 3


def test_known_groups():
    assert group_size(" replica_groups=[2,4]<=[4,2]T(1,0), x=1", 99) == 4
    assert group_size(" replica_groups=[4,2]<=[8], x=1", 99) == 2
    assert group_size(" replica_groups={}, x=1", 8) == 8
    assert group_size(" channel_id=1", 8) == 8
    assert group_size(" replica_groups=mesh['a'=4,'b'=2,'c'=3] {'a','c'}, x={'b'}", 24) == 12
    assert group_size(" replica_groups=mesh['a'=8] {'a':(1)2}", 8) == 2


# Convolutions


@given(*(st.integers(1, most) for most in (7, 7, 7, 3, 6, 4, 3)))
def test_products_with_padding_and_holes_do_not_count(size, kernel, out, stride, low, dilation, kernel_dilation):
    held = {i * dilation for i in range(size)}  # where the dilated input has elements
    met = [o * stride + k * kernel_dilation - low in held for o in range(out) for k in range(kernel)]
    assert _seen(size, kernel, out, stride, low, dilation, kernel_dilation) == sum(met)


def test_a_batch_written_as_a_dilated_convolution_counts_as_a_dot():
    line = (
        "  %c = bf16[16,8,32]{2,1,0} convolution(%a, %b), window={size=16 stride=15 lhs_dilate=16}, "
        "dim_labels=0bf_0io->0bf\n"
    )
    left, right = Array("bf16", (16, 8, 24)), Array("bf16", (16, 24, 32))
    found = parse_instruction(line)
    assert convolution_flops(found.shape[0], left, right, found) == 2 * 16 * 8 * 24 * 32


# What only TPUs write


TPU = """HloModule jit_step, is_scheduled=true, num_partitions=8

%part (p: bf16[4,8]) -> bf16[4,8] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %g = bf16[32,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%called (q: f32[64]) -> f32[64] {
  %q = f32[64]{0:T(128)} parameter(0)
  ROOT %r = f32[64]{0:T(128)} all-reduce(%q), channel_id=2, replica_groups=[4,2]<=[8], to_apply=%add, \
metadata={op_name="jit(step)/transpose(jvp())/rematted_computation/add" source_file="/x/y.py" source_line=12}
}

ENTRY %main (a: bf16[4,8], b: f32[64]) -> bf16[32,8] {
  %a = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[64]{0:T(128)} parameter(1)
  %f.1 = bf16[32,8]{1,0:T(8,128)(2,1)} fusion(%a), kind=kCustom, calls=%part
  %f.2 = bf16[32,8]{1,0:T(8,128)(2,1)} fusion(%a), kind=kCustom, calls=%part
  %s = ((f32[64]{0:T(128)}, token[]), f32[64]{0:T(128)}, u32[]{:S(8)}) call-start(%b), \
async_execution_thread="sparsecore", to_apply=%called
  %t = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) all-to-all-start(%a), channel_id=3, replica_groups={{0,1},{2,3},{4,5},{6,7}}
  %u = bf16[4,8]{1,0} all-to-all-done(%t)
  %after = token[] after-all(), frontend_attributes={MegascaleRendezvousKeyName="all-to-all_0"}
  %send = (bf16[4,8]{1,0}, u32[], token[]) send(%a, %after), channel_id=4, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",\
_xla_host_transfer_rendezvous="all-to-all.1_0",_xla_megascale_target={{100000,100001,200000,200001}}}
  %recv = (bf16[4,8]{1,0}, u32[], token[]) recv(%after), channel_id=5, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %done = token[] send-done(%send), channel_id=4, is_host_transfer=true
  ROOT %o = bf16[32,8]{1,0:T(8,128)(2,1)} custom-call(%f.2), custom_call_target="tpu_custom_call"
}
"""


def test_asynchronous_fused_offloaded_and_cross_slice_collectives_count_once():
    program = analyse(TPU)
    assert {(one.kind, one.across_slices): (one.payload_bytes, one.group_size) for one in program.collectives} == {
        ("all-gather", False): (512, 8),
        ("all-reduce", False): (256, 2),
        ("all-to-all", False): (64, 2),
        ("all-to-all", True): (64, 4),
    }
    assert len(program.collectives) == 4
    assert program.totals()["all-to-all across slices"] == (1, 64)
    reduced = next(one for one in program.collectives if one.kind == "all-reduce")
    assert (reduced.phase, reduced.source) == ("recomputed", "/x/y.py:12")
    assert any("tpu_custom_call" in note for note in program.notes)
    assert program.devices == 8


def loop(condition, initial=0, step=1, bound=10):
    return f"""HloModule m

%cond (p: (s32[], f32[2])) -> pred[] {{
  %p = (s32[]{{:T(128)}}, f32[2]{{0}}) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%p), index=0
  %n = s32[]{{:T(128)}} constant({bound})
  ROOT %c = pred[] compare({condition}
}}

%body (q: (s32[], f32[2])) -> (s32[], f32[2]) {{
  %q = (s32[]{{:T(128)}}, f32[2]{{0}}) parameter(0)
  %j = s32[]{{:T(128)}} get-tuple-element(%q), index=0
  %x = f32[2]{{0}} get-tuple-element(%q), index=1
  %one = s32[]{{:T(128)}} constant({step})
  %y = f32[2]{{0}} all-reduce(%x), replica_groups={{{{0,1}}}}, to_apply=%add
  %k = s32[]{{:T(128)}} add(%one, %j)
  ROOT %t = (s32[]{{:T(128)}}, f32[2]{{0}}) tuple(%k, %y)
}}

ENTRY %main (x0: f32[2]) -> (s32[], f32[2]) {{
  %x0 = f32[2]{{0}} parameter(0)
  %z = s32[]{{:T(128)}} constant({initial})
  %z.copy = s32[]{{:T(128)}} copy(%z)
  %begin = (s32[]{{:T(128)}}, f32[2]{{0}}) tuple(%z.copy, %x0)
  ROOT %w = (s32[]{{:T(128)}}, f32[2]{{0}}) while(%begin), condition=%cond, body=%body
}}
"""


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("%i, %n), direction=LT", lambda i, n: i < n),
        ("%i, %n), direction=LE", lambda i, n: i <= n),
        ("%n, %i), direction=GT", lambda i, n: n > i),
        ("%i, %n), direction=NE", lambda i, n: i != n),
    ],
)
@pytest.mark.parametrize(("initial", "step"), [(0, 1), (4, 1), (0, 2), (20, 1)])
def test_trip_counts_are_those_of_running_the_loop(condition, runs, initial, step):
    initial = min(initial, 10) if "NE" in condition else initial  # else it would not end
    at, count = initial, 0
    while runs(at, 10):
        at, count = at + step, count + 1
    program = analyse(loop(condition, initial, step))
    assert sum(one.executions for one in program.collectives) == count
    assert program.collectives[0].trip_counts == (count,)


@pytest.mark.parametrize("condition", ["%i, %i), direction=LT", "%i, %n), direction=EQ", "%i, %n), direction=GT"])
def test_a_loop_that_cannot_be_read_counts_once(condition):
    program = analyse(loop(condition))
    assert (program.collectives[0].executions, program.collectives[0].trip_counts) == (1, (None,))
    assert any("trip count not known" in note for note in program.notes)


def test_the_largest_branch_counts():
    text = """HloModule m

%small (p: f32[4,4]) -> f32[4,4] {
  ROOT %p = f32[4,4]{1,0} parameter(0)
}

%large (q: f32[4,4]) -> f32[4,4] {
  %q = f32[4,4]{1,0} parameter(0)
  ROOT %d = f32[4,4]{1,0} dot(%q, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: f32[4,4], i: s32[]) -> f32[4,4] {
  %x = f32[4,4]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %c = f32[4,4]{1,0} conditional(%i, %x, %x), branch_computations={%small, %large}
}
"""
    program = analyse(text)
    assert program.flops == 2 * 4**3
    assert any("largest branch" in note for note in program.notes)


def test_layers_there_must_be():
    with pytest.raises(ValueError, match="0 layers"):
        analyse(TPU).per_layer(0)


def test_only_slices_of_stacked_arrays_count_as_read():
    text = """HloModule m

%fused (p: f32[10,128], i: s32[], o: f32[10,128]) -> f32[10,128] {
  %p = f32[10,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %o = f32[10,128]{1,0} parameter(2)
  %z = s32[] constant(0)
  %s = f32[1,128]{1,0} dynamic-slice(%p, %i, %z), dynamic_slice_sizes={1,128}
  %e = f32[1,128]{1,0} exponential(%s)
  ROOT %u = f32[10,128]{1,0} dynamic-update-slice(%o, %e, %i, %z)
}

ENTRY %main (a: f32[10,128], b: s32[], c: f32[10,128]) -> f32[10,128] {
  %a = f32[10,128]{1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = f32[10,128]{1,0} parameter(2)
  %v = f32[10,128]{1,0:T(8,128)S(1)} copy(%a)
  ROOT %f = f32[10,128]{1,0} fusion(%a, %b, %c), kind=kLoop, calls=%fused
}
"""
    # The copy reads all of a and writes it on the chip; the fusion reads and writes a row, and reads the index.
    assert analyse(text).bytes_accessed == 10 * 512 + 512 + 4 + 512


def test_a_large_text_takes_memory_and_time_that_grow_with_its_length_only():
    many = 2000
    body = "\n".join(f"  %d.{i} = f32[4,4]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}" for i in range(many))
    text = f"HloModule m\n\nENTRY %main (x: f32[4,4]) -> f32[4,4] {{\n  %x = f32[4,4]{{1,0}} parameter(0)\n{body}\n}}\n"
    assert analyse(text).flops == many * 2 * 4**3
    assert np.isclose(analyse(text).bytes_accessed, many * 3 * 64)


@pytest.mark.parametrize(
    ("line", "read", "written"),
    [
        ("(f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x)", 32, 0),
        ("((f32[8]{0}), f32[2]{0}, u32[]{:S(2)}) slice-start(%x), slice={[0:2]}", 8, 8),
        ("(f32[8]{0}, f32[64]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8], dimensions={0}", 32, 256),
        ("f32[8]{0} all-reduce-start(%x), replica_groups=[1,8]<=[8], to_apply=%add", 32, 32),
        ("f32[2]{0} slice(%x), slice={[0:2]}", 8, 8),
        ("f32[8]{0:S(1)} slice(%x), slice={[0:8]}", 32, 0),
        ("f32[8]{0} bitcast(%x)", 0, 0),
    ],
)
def test_bytes_of_one_instruction(line, read, written):
    text = f"HloModule m\n\nENTRY %m (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n  %y = {line}\n}}\n"
    assert analyse(text).bytes_accessed == read + written
