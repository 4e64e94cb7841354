"""Reading compiled programs: texts written by hand, with known numbers, and programs that JAX compiles."""
# ruff: noqa: E501
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.plan import arithmetic, hlo, hlo_text

ADD = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""

# Three trips by the compiler's word, in each a product of [4, 8] and [8, 8] and an all-reduce of its 128 bytes.
LOOP = ADD + """
%body (state: (s32[], f32[4,8], f32[8,8])) -> (s32[], f32[4,8], f32[8,8]) {
  %state = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %w = f32[8,8]{1,0} get-tuple-element(%state), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = f32[4,8]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[4,8]{1,0} all-reduce(%y), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %out = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}) tuple(%next, %z, %w)
}

%condition (state.1: (s32[], f32[4,8], f32[8,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x.1: f32[4,8], w.1: f32[8,8]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %w.1 = f32[8,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}) tuple(%zero, %x.1, %w.1)
  %loop = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}) while(%start), condition=%condition, body=%bodyTRIPS
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize("trips, number", [(', backend_config={"known_trip_count":{"n":"3"}}', 3), ("", 5)])
def test_bodies_count_by_their_trips(trips, number):
  """The trip count that the compiler knows, else the constant of the condition."""
  program = hlo.read(LOOP.replace("%bodyTRIPS", "%body" + trips))
  assert program.flops == number * 2 * 4 * 8 * 8
  one, = program.collectives
  assert (one.kind, one.bytes, one.count, one.dtype, one.in_loop) == ("all-reduce", 128, number, "f32", True)
  assert one.axes({"data": 2, "model": 4}) == ("model",)
  assert one.traffic(8) == 128 * 2 * 3 / 4
  # A trip reads both factors and writes the product, reads and writes the sum, and two counters and one.
  assert program.memory_bytes == number * ((128 + 256 + 128) + (128 + 128) + 12)


def test_loops_of_unknown_length_are_named():
  program = hlo.read(LOOP.replace("%bodyTRIPS", "%body").replace("constant(5)", "parameter(1)"))
  assert program.unknown_loops == ["loop"] and program.flops == 2 * 4 * 8 * 8


# Copies of one gather: its start, the fusion that runs meanwhile, and its end; then a reduce-scatter as TPUs write it.
ASYNCHRONOUS = ADD + """
%begin (part: bf16[2,64]) -> (bf16[2,64], bf16[8,64]) {
  %part = bf16[2,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %gather = bf16[8,64]{1,0:T(8,128)(2,1)} all-gather(%part), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, metadata={op_name="f" stack_frame_id=3}
  ROOT %start = (bf16[2,64]{1,0:S(1)}, bf16[8,64]{1,0:S(1)}) custom-call(%gather), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (part.1: bf16[2,64], x: f32[4,4]) -> (f32[4,4], bf16[8,64]) {
  %part.1 = bf16[2,64]{1,0} parameter(0)
  %x = f32[4,4]{1,0} parameter(1)
  %gather.1 = bf16[8,64]{1,0} all-gather(%part.1), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  %square = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %both = (f32[4,4]{1,0}, bf16[8,64]{1,0}) tuple(%square, %gather.1)
}

%end (part.2: bf16[2,64]) -> bf16[8,64] {
  %part.2 = bf16[2,64]{1,0} parameter(0)
  %gather.2 = bf16[8,64]{1,0} all-gather(%part.2), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %done = bf16[8,64]{1,0} custom-call(%part.2, %gather.2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.4 (input: f32[8,64]) -> f32[2,64] {
  %input = f32[8,64]{1,0} parameter(0)
  %reduced = f32[8,64]{1,0} all-reduce(%input), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %zero = u32[] constant(0)
  %id = u32[] partition-id()
  ROOT %mine = f32[2,64]{1,0} dynamic-slice(%reduced, %id, %zero), dynamic_slice_sizes={2,64}
}

ENTRY %main (p: bf16[2,64], q: f32[4,4], g: f32[8,64]) -> f32[2,64] {
  %p = bf16[2,64]{1,0} parameter(0)
  %q = f32[4,4]{1,0} parameter(1)
  %g = f32[8,64]{1,0} parameter(2)
  %f1 = (bf16[2,64]{1,0:S(1)}, bf16[8,64]{1,0:S(1)}) fusion(%p), kind=kCustom, calls=%begin
  %f2 = (f32[4,4]{1,0}, bf16[8,64]{1,0}) fusion(%p, %q), kind=kOutput, calls=%async_collective_fusion.1
  %f3 = bf16[8,64]{1,0} fusion(%p), kind=kCustom, calls=%end
  %s = ((f32[4]{0}), f32[4]{0}) all-reduce-start(%q), channel_id=11, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %d = f32[4]{0} all-reduce-done(%s)
  ROOT %f4 = f32[2,64]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.4, metadata={op_name="g" stack_frame_id=2}
}

FileNames
1 "/home/me/embeddings_jax/nets/x.py"
2 "/lib/jax/y.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=34 end_line=34 column=1 end_column=2}
3 {file_name_id=2 function_name_id=1 line=56 end_line=56 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
"""


def test_copies_of_asynchronous_collectives_count_once():
  program = hlo.read(ASYNCHRONOUS)
  by_kind = {one.kind: one for one in program.collectives}
  assert len(program.collectives) == len(by_kind) == 3
  shape = {"data": 2, "fsdp": 4}
  gather, scatter, reduce = (by_kind[kind] for kind in ("all-gather", "reduce-scatter", "all-reduce"))
  assert (gather.bytes, gather.dtype, gather.axes(shape)) == (8 * 64 * 2, "bf16", ("fsdp",))
  assert (scatter.bytes, scatter.axes(shape)) == (8 * 64 * 4, ("fsdp",))
  assert reduce.axes(shape) == ("data",)
  assert gather.traffic(8) == 8 * 64 * 2 * 3 / 4 and scatter.traffic(8) == 8 * 64 * 4 * 3 / 4
  assert program.flops == 2 * 4 * 4 * 4
  # The innermost line of the project, whose caller stands outside of it, and the fusion's where the inside has none.
  assert gather.source == scatter.source == "nets/x.py:34"


@pytest.mark.parametrize("text, expected", [
    ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['x'=2,'y'=2] {'x'}, x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'x'}, x", [[0, 1], [2, 3]]),
    ("replica_groups=mesh['x'=2,'y'=2] {'x','y'}, x", [[0, 1, 2, 3]]),
    ("source_target_pairs={{0,1},{1,0}}, x", [[0, 1], [1, 0]])])
def test_groups_in_every_notation(text, expected):
  np.testing.assert_array_equal(hlo_text.groups(text), expected)


def test_sums_over_slices_are_of_parts():
  """Sixteen devices, eight in each of two slices; 800 bytes."""
  def one(kind, *rows):
    return hlo.Collective(kind, "f32", 800, np.array(rows) if rows else None, 1, "", False)

  # Of the eighth that each device has after the scatter within its slice, half goes out, and half after the sum.
  assert one("all-reduce").network_traffic(16, 2) == 2 * 100 / 2
  assert one("all-reduce").traffic(16) - one("all-reduce").network_traffic(16, 2) == 2 * 800 * 7 / 8
  # Four devices with two in either slice; two of one slice; pairs of both; and one slice alone.
  across = one("all-gather", [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15])
  assert across.network_traffic(16, 2) == 800 / 2 / 2
  assert one("all-gather", [0, 1], [8, 9]).network_traffic(16, 2) == 0
  assert one("all-to-all", [0, 8], [1, 9]).network_traffic(16, 2) == 800 / 2
  assert one("collective-permute", [0, 1], [7, 8]).network_traffic(16, 2) == 800
  assert one("all-reduce").network_traffic(16, 1) == 0


def test_transfers_between_slices_are_collectives():
  """The gradient of a [64, 256] part, summed over two slices of sixteen TPUs through their hosts, as libtpu writes it;
  a program of several slices is that of one."""
  attributes = ('channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="all-reduce", '
                '_xla_megascale_reduce_operation="SUM",_xla_megascale_target="{1,2}x{0:15}",'
                '_xla_megascale_transfer_type="ALL_REDUCE"}')
  program = hlo.read(f"""HloModule jit_f, is_scheduled=true, num_partitions=16

ENTRY %main (part: f32[64,256]) -> f32[64,256] {{
  %part = f32[64,256]{{1,0}} parameter(0)
  %token = token[] after-all()
  %send = (f32[64,256]{{1,0}}, u32[], token[]) send(%part, %token), {attributes}
  %recv = (f32[64,256]{{1,0}}, u32[], token[]) recv(%token), {attributes}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %received = (f32[64,256]{{1,0}}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %sum = f32[64,256]{{1,0}} get-tuple-element(%received), index=0
}}
""")
  (one,) = program.collectives
  assert (one.kind, one.dtype, one.bytes, one.count) == ("all-reduce", "f32", 64 * 256 * 4, 1)
  assert one.groups.tolist() == [[i, 16 + i] for i in range(16)]
  assert one.axes({"data": 8, "fsdp": 4, "model": 1}) == ("data",)
  assert one.network_traffic(32, 2) == one.traffic(32) == 64 * 256 * 4


def test_all_devices_are_one_group_unless_some_are_named():
  assert hlo_text.groups("replica_groups={}, x") is None


IN_PLACE = """
%update (table: f32[100,64], row: f32[1,64], i: s32[]) -> f32[100,64] {
  %table = f32[100,64]{1,0} parameter(0)
  %row = f32[1,64]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %new = f32[100,64]{1,0} dynamic-update-slice(%table, %row, %i, %zero)
}

%take (table.1: f32[100,64], i.1: s32[]) -> f32[1,64] {
  %table.1 = f32[100,64]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %mine = f32[1,64]{1,0} dynamic-slice(%table.1, %i.1, %zero.1), dynamic_slice_sizes={1,64}
  ROOT %twice = f32[1,64]{1,0} add(%mine, %mine)
}

ENTRY %main (p: f32[100,64], i.2: s32[]) -> f32[100,64] {
  %p = f32[100,64]{1,0} parameter(0)
  %i.2 = s32[] parameter(1)
  %row.1 = f32[1,64]{1,0} fusion(%p, %i.2), kind=kLoop, calls=%take
  %near = f32[1,64]{1,0:S(1)} copy(%row.1)
  ROOT %out = f32[100,64]{1,0} fusion(%p, %row.1, %i.2), kind=kLoop, calls=%update
}
"""


def test_attributes_of_kernels_may_have_several_lines():
  kernel = """  %near = f32[1,64]{1,0:S(1)} custom-call(%row.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{block: 128}"
}}, metadata={op_name="x"}"""
  text = IN_PLACE.replace("  %near = f32[1,64]{1,0:S(1)} copy(%row.1)", kernel)
  computations, entry = hlo_text.parse(text)
  assert len(computations[entry]) == 5 and computations[entry]["near"].attributes.endswith('metadata={op_name="x"}')
  assert hlo.read(text).memory_bytes == hlo.read(IN_PLACE).memory_bytes


def test_slices_and_updates_in_place_touch_their_part():
  row, index = 64 * 4, 4
  take, near, update = (row + index + row), row, (row + index + row)  # `near` lies beside the processor.
  assert hlo.read(IN_PLACE).memory_bytes == take + near + update


# Of a scan over layers on a TPU: what a layer keeps is written into the array of all layers by the fusion that computes
# it, which has it as a second result too; on the way back a fusion within the fusion takes it out.
OF_LAYERS = """
%keep (kept: bf16[12,100,64], x: bf16[100,64], i: s32[]) -> (bf16[12,100,64], bf16[100,64]) {
  %kept = bf16[12,100,64]{2,1,0} parameter(0)
  %x = bf16[100,64]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %y = bf16[100,64]{1,0} exponential(%x)
  %part = bf16[1,100,64]{2,1,0} bitcast(%y)
  %all = bf16[12,100,64]{2,1,0} dynamic-update-slice(%kept, %part, %i, %zero, %zero)
  ROOT %both = (bf16[12,100,64]{2,1,0}, bf16[100,64]{1,0}) tuple(%all, %y)
}

%layer (kept.1: bf16[12,100,64], i.1: s32[]) -> bf16[100,64] {
  %kept.1 = bf16[12,100,64]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %one = bf16[1,100,64]{2,1,0} dynamic-slice(%kept.1, %i.1, %zero.1, %zero.1), dynamic_slice_sizes={1,100,64}
  ROOT %flat = bf16[100,64]{1,0} bitcast(%one)
}

%back (slope: bf16[100,64], kept.2: bf16[12,100,64], i.2: s32[]) -> f32[64,64] {
  %slope = bf16[100,64]{1,0} parameter(0)
  %kept.2 = bf16[12,100,64]{2,1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  %y.1 = bf16[100,64]{1,0} fusion(%kept.2, %i.2), kind=kLoop, calls=%layer
  ROOT %w = f32[64,64]{1,0} dot(%y.1, %slope), lhs_contracting_dims={0}, rhs_contracting_dims={0}
}

ENTRY %main (x.1: bf16[100,64], i.3: s32[]) -> f32[64,64] {
  %x.1 = bf16[100,64]{1,0} parameter(0)
  %i.3 = s32[] parameter(1)
  %room = bf16[12,100,64]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  %two = (bf16[12,100,64]{2,1,0}, bf16[100,64]{1,0:S(1)}) fusion(%room, %x.1, %i.3), kind=kOutput, calls=%keep
  %new = bf16[12,100,64]{2,1,0} get-tuple-element(%two), index=0
  %near = bf16[100,64]{1,0:S(1)} get-tuple-element(%two), index=1
  ROOT %out = f32[64,64]{1,0} fusion(%near, %new, %i.3), kind=kOutput, calls=%back
}
"""


def test_arrays_of_all_layers_are_touched_one_layer_at_a_time():
  layer, index, weights = 100 * 64 * 2, 4, 64 * 64 * 4
  keep = (layer + index) + layer  # The copy beside the processor is not written to memory.
  back = (layer + index) + weights
  assert hlo.read(OF_LAYERS).memory_bytes == keep + back


def test_a_batch_of_products_may_be_a_dilated_convolution():
  """As TPUs write 4 x 4 products of [128, 64] and [64, 128]."""
  flops = hlo._convolution_flops("window={size=4x4 stride=3x3 lhs_dilate=4x4}, dim_labels=01bf_01oi->01bf",
                                 (4, 4, 128, 64), (4, 4, 128, 64), (4, 4, 128, 128))
  assert flops == 4 * 4 * 2 * 128 * 128 * 64
  # 3 x 3 with padding on 5 x 5: each of the two axes meets 3 * 5 - 2 elements.
  padded = hlo._convolution_flops("window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
                                  (2, 5, 5, 7), (3, 3, 7, 11), (2, 5, 5, 11))
  assert padded == 2 * 2 * 7 * 11 * 13 * 13


def compiled(function, mesh, *arguments, **options):
  with jax.set_mesh(mesh):
    traced = jax.jit(function, **options).trace(*arguments)
    return hlo.read(traced.lower().compile().as_text()), arithmetic.flops(traced.jaxpr)


def test_a_gradient_on_eight_devices(mesh_of):
  """Data parallel layers in a scan: every product is split in eight, and the gradient is summed once."""
  mesh = mesh_of("data:4,fsdp:2")

  def loss(weights, x):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

  at = lambda shape, spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
  weights, x = at((3, 16, 16), P()), at((64, 16), P(("data", "fsdp")))
  program, asked = compiled(jax.grad(loss), mesh, weights, x, out_shardings=NamedSharding(mesh, P()))
  assert asked == 3 * 3 * 2 * 64 * 16 * 16  # Forward, and two products backward.
  assert program.flops * 8 == asked and not program.unknown_loops
  sums = [one for one in program.collectives if one.kind == "all-reduce"]
  assert sum(one.bytes * one.count for one in sums) == 3 * 16 * 16 * 4
  assert {one.axes({"data": 4, "fsdp": 2, "model": 1}) for one in sums} == {("data", "fsdp")}
  assert all(one.size(8) == 8 and one.source.startswith("test_hlo_reader.py:") for one in sums)


def test_repeated_work_and_shard_map_are_seen(mesh_of):
  mesh = mesh_of("data:8")
  x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=NamedSharding(mesh, P()))
  program, asked = compiled(lambda x: x @ x.T, mesh, x)
  assert asked == 2 * 16 * 16 * 32 and program.flops == asked  # On each of the eight devices.
  rows = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=NamedSharding(mesh, P("data")))
  local = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  program, asked = compiled(local, mesh, rows)
  assert asked == 8 * 2 * 2 * 2 * 32 == program.flops * 8


def test_products_of_kernels_are_those_of_every_cell_of_their_grid():
  from embeddings_jax.ops.kernels import splash

  x = jnp.zeros((2, 256, 3, 64))
  jaxpr = jax.make_jaxpr(lambda q, k, v: splash.splash(q, k, v, interpret=True))(x, x, x)
  assert arithmetic.flops(jaxpr) == arithmetic.kernel_flops(jaxpr) == 2 * 2 * 2 * 3 * 256 * 256 * 64
  assert arithmetic.kernel_flops(jax.make_jaxpr(jnp.dot)(x[0, :, 0], x[0, :, 0].T)) == 0


def test_products_of_branches_and_convolutions():
  branches = lambda p, x: jax.lax.cond(p, lambda x: x @ x @ x, lambda x: x @ x, x)
  jaxpr = jax.make_jaxpr(branches)(True, jnp.ones((4, 4)))
  assert arithmetic.flops(jaxpr) == 2 * 2 * 4**3
  convolve = lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  jaxpr = jax.make_jaxpr(convolve)(jnp.ones((2, 5, 5, 7)), jnp.ones((3, 3, 7, 11)))
  assert arithmetic.flops(jaxpr) == 2 * 2 * 7 * 11 * 13 * 13
