"""A plan: a recipe on a topology, its step compiled and taken apart."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from nmt.config import ModelConfig, Recipe
from nmt.models.weights import count_parameters
from nmt.plan.chips import Chip, chip_for
from nmt.plan.compile import Compiled, Overflow, compile_decoding, compile_step, decode_rows, trainer_of
from nmt.plan.flops import model_flops
from nmt.plan.hlo import Program, analyse
from nmt.plan.memory import Parameters, classes, elements_on_device
from nmt.plan.paper import Published, published
from nmt.plan.roofline import Roofline, estimate
from nmt.plan.topology import Topology, describe
from nmt.sharding import make_layout

TRILLION = 1e12  # tokens of the paper's runs


@dataclass(frozen=True)
class Plan:
    """What a recipe is on a topology; bytes are those of one device."""

    recipe: str
    topology: Topology
    decode: bool
    mesh: dict[str, int]
    parameters: Parameters
    tokens: int  # of a batch, on the side that its size counts; of decoding its rows, each of which gets a token a step
    sparse_layers: int  # of encoder and decoder
    chip: Chip
    memory: dict[str, int]  # by class; without temporaries where the program does not fit
    outcome: Compiled | Overflow
    program: Program | None = None  # None: it does not fit
    model_flops: float = 0.0  # of a step on all devices, by the model's mathematics
    roofline: Roofline | None = None  # None: figures of the chip are not published
    paper: Published | None = None  # the same model, as published

    @property
    def fits(self) -> bool:
        """Whether the program fits the memory of a device."""
        return isinstance(self.outcome, Compiled)

    @property
    def devices(self) -> int:
        """Devices of all slices."""
        return self.topology.devices


def make_plan(recipe: Recipe, topology: Topology, decode: bool = False) -> Plan:
    """Compile the train step of a recipe for a topology, or its decoding of a batch, and read what it is.

    Raises:
      UserError: the mesh does not fit the topology, the model or the batch.
    """
    layout = make_layout(recipe.mesh, describe(topology))
    trainer = trainer_of(recipe, layout)
    total, active = count_parameters(recipe.model, trainer.state.parameters)
    plan = Plan(
        recipe=recipe.name,
        topology=topology,
        decode=decode,
        mesh=dict(layout.mesh.shape),
        parameters=Parameters(total, active, elements_on_device(trainer.state.parameters)),
        tokens=recipe.train.tokens_per_batch,
        sparse_layers=sparse_layers(recipe.model),
        chip=chip_for(topology.kind),
        memory={},
        outcome=compile_decoding(recipe, trainer, layout) if decode else compile_step(trainer, layout),
        paper=None if decode else _paper(recipe, total),
    )
    temporaries = plan.outcome.memory.temporaries if isinstance(plan.outcome, Compiled) else 0
    if decode:
        arguments = plan.outcome.memory.arguments if isinstance(plan.outcome, Compiled) else 0
        plan = replace(
            plan, memory={"weights": arguments, "activations": temporaries}, tokens=decode_rows(recipe, layout)
        )
    else:
        memory = classes(recipe, trainer.state, trainer.batch, temporaries, topology.devices)
        plan = replace(plan, memory=memory)
    return _timed(plan, recipe, plan.outcome) if isinstance(plan.outcome, Compiled) else plan


def sparse_layers(model: ModelConfig) -> int:
    """Return how many layers of encoder and decoder have experts."""
    moe = model.moe
    layers = [*range(model.encoder_layers), *range(model.decoder_layers)]
    return 0 if moe is None else sum(layer % moe.every == moe.sparse_layer for layer in layers)


def _timed(plan: Plan, recipe: Recipe, compiled: Compiled) -> Plan:
    """Return a plan with its program read and its time estimated."""
    program = analyse(compiled.text)
    flops = 0.0 if plan.decode else _training_flops(recipe)
    plan = replace(plan, program=program, model_flops=flops)
    if plan.chip.peak_flops is None or plan.chip.hbm_bandwidth is None or plan.chip.link_bandwidth is None:
        return plan
    topology = plan.topology
    roofline = estimate(
        program, plan.chip, topology.devices, topology.shape, plan.tokens, flops, slices=topology.slices
    )
    return replace(plan, roofline=roofline)


def _training_flops(recipe: Recipe) -> float:
    data = recipe.data
    lengths = data.source_length, data.target_length
    flops = model_flops(recipe.model, recipe.vocab.sizes, recipe.rows, *lengths, recipe.train.accumulate)
    return flops.total.training


def _paper(recipe: Recipe, parameters: int) -> Published | None:
    """Return what was published of a model, if this is one of GShard's and not just as deep and as wide."""
    model = recipe.model
    row = published(model.moe.experts if model.moe else None, model.encoder_layers + model.decoder_layers)
    return row if row and abs(parameters / row.weights - 1.0) < 0.1 else None


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as what JSON can hold; bytes are those of one device, seconds are estimated but for compiling."""
    outcome, chip = plan.outcome, plan.chip
    result: dict[str, Any] = {
        "recipe": plan.recipe,
        "topology": str(plan.topology),
        "program": "decode" if plan.decode else "train",
        "devices": plan.devices,
        "mesh": plan.mesh,
        "parameters": asdict(plan.parameters),
        "tokens_per_step": plan.tokens,
        "fits": plan.fits,
        "hbm_bytes": chip.hbm_bytes,
        "memory_by_class": plan.memory,
        "compile_seconds": outcome.compile_seconds,
    }
    if isinstance(outcome, Overflow):
        return result | {"needed_bytes": outcome.needed, "available_bytes": outcome.available}
    assert plan.program is not None
    result |= {
        "lower_seconds": outcome.lower_seconds,
        "host_peak_bytes": outcome.host_bytes,
        "memory": asdict(outcome.memory),
        "flops_per_device": plan.program.flops,
        "flops_per_step": plan.program.flops * plan.devices,
        "flops_per_token": plan.program.flops * plan.devices / plan.tokens,
        "model_flops_per_step": plan.model_flops,
        "hbm_bytes_accessed": plan.program.bytes_accessed,
        "collectives": {
            kind: {"executions": count, "bytes": size} for kind, (count, size) in plan.program.totals().items()
        },
        "all_to_all_per_sparse_layer": plan.program.per_layer(plan.sparse_layers) if plan.sparse_layers else {},
        "collective_list": [
            {
                "kind": one.kind,
                "phase": one.phase,
                "executions": one.executions,
                "payload_bytes": one.payload_bytes,
                "group_size": one.group_size,
                "across_slices": one.across_slices,
                "op_name": one.op_name,
                "source": one.source,
            }
            for one in plan.program.collectives
        ],
        "notes": list(plan.program.notes),
    }
    if plan.roofline is not None:
        result["roofline"] = _roofline(plan.roofline, plan.decode)
    if plan.paper is not None:
        result["paper"] = asdict(plan.paper)
    return result


def _roofline(roofline: Roofline, decode: bool) -> dict[str, Any]:
    training = {"mfu": roofline.mfu(), "days_to_1e12_tokens": roofline.days(TRILLION)}
    return {
        "compute_seconds": roofline.compute,
        "memory_seconds": roofline.memory,
        "interconnect_seconds": roofline.interconnect,
        "step_seconds_at_least": roofline.at_least,
        "step_seconds_at_most": roofline.at_most,
        "bound_by": roofline.bound_by,
        "tokens_per_second": roofline.tokens_per_second(),
        "assumptions": list(roofline.assumptions),
    } | ({} if decode else training)
