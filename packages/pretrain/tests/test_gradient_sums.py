"""Gradients summed over processes during the backward pass: against DistributedDataParallel, and when what leaves."""

import json

import pytest
import torch
from torch import nn
from unveil_pretrain.gradient_sums import GradientSums, summed_gradients
from unveil_pretrain.world import World

SUMS = """
import json
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from unveil_pretrain import gradient_sums
from unveil_pretrain.gradient_sums import summed_gradients
from unveil_pretrain.world import joined, world_of_environment

gradient_sums._MESSAGE = 12  # elements: each layer of nine and three is a message
world = world_of_environment()
events = []

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])
        self.unused = nn.Linear(2, 2)

    def forward(self, rows, skipped=()):
        for number, layer in enumerate(self.layers):
            if number not in skipped:
                rows = layer(rows).tanh()
        return rows * self.scale

def listened(module):
    for number, layer in enumerate(module.layers):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: events.append(f"gradient {number}"))

send = dist.all_reduce
def noted(tensor, *arguments, **named):
    kind = "flags" if tensor.dtype == torch.int32 else "gathered" if tensor.dim() == 2 else "message"
    events.append(f"{kind} of {tensor.numel()}")
    return send(tensor, *arguments, **named)

def found(module):
    return {name: None if one.grad is None else one.grad.tolist() for name, one in module.named_parameters()}

def step(run):
    module = Named()
    listened(module)
    events.clear()
    with summed_gradients(world, module) as sums:
        run(module, sums)
    return found(module), list(events)

def parts(module, sums):
    for number, part in enumerate(mine.chunk(2)):
        if number == 1:
            sums.last_pass()
        module(part).sum().backward()

def coupled(module, sums):
    sums.last_pass()
    embedded = module(mine)
    sums.hold_until([embedded, embedded.detach()])
    others = world.gather(embedded)
    # As a loss of its own beside the embeddings: its gradients come before those of the gathered rows.
    ((embedded @ others.T).exp().sum() * module.scale).backward()

def uneven(module, sums):
    sums.last_pass()
    module(mine, skipped=(2,) if world.rank else ()).sum().backward()

with joined(world, torch.device("cpu")):
    torch.manual_seed(0)
    mine = torch.randn(8, 3)[world.share(8)]
    dist.all_reduce = noted
    said = {run.__name__: step(run) for run in (parts, coupled, uneven)}
    dist.all_reduce = send
    reference = Named()
    spread = DistributedDataParallel(reference, find_unused_parameters=True)
    with spread.no_sync():
        spread(mine[: len(mine) // 2]).sum().backward()
    spread(mine[len(mine) // 2:]).sum().backward()
    said["torch"] = found(reference), []
    try:
        outside = DistributedDataParallel(Named(), find_unused_parameters=True)
        (outside(mine).sum() * outside.module.unused.weight.sum()).backward()
        said["refused"] = ""
    except RuntimeError as error:
        said["refused"] = str(error)
    alone = Named()
    torch.manual_seed(0)
    rows = torch.randn(8, 3)
    embedded = alone(rows)
    ((embedded @ embedded.T).exp().sum() * alone.scale).backward()
    said["coupled alone"] = found(alone), []
    skipping = Named()
    halves = [skipping(rows[:4]), skipping(rows[4:], skipped=(2,))]
    (halves[0].sum() + halves[1].sum()).backward()
    said["uneven alone"] = found(skipping), []
    print(json.dumps(said))
"""


def same(found, expected, factor=1.0):
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        if one is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(torch.tensor(found[name]), factor * torch.tensor(one), rtol=2e-6, atol=1e-6)


def sent_in(events):
    return [event for event in events if "gradient" not in event]


def test_sums_are_those_of_torch_and_leave_during_the_backward_pass(in_processes):
    said = [json.loads(out) for out in in_processes(2, SUMS)]
    for one in said:
        # DistributedDataParallel gives means; a parameter that nobody used has no gradient in either.
        same(one["parts"][0], one["torch"][0], factor=2.0)
        assert one["parts"][0]["unused.weight"] is None
        same(one["coupled"][0], one["coupled alone"][0])
        same(one["uneven"][0], one["uneven alone"][0])
        assert one["parts"][0]["layers.2.weight"] is not None
        # Why its reducer is not used here.
        assert "Use of a module parameter outside the `forward` function" in one["refused"]
    # Every process sends the same messages in the same order, also where their gradients differ in number.
    for run in ("parts", "coupled", "uneven"):
        sent = [sent_in(one[run][1]) for one in said]
        assert sent[0] == sent[1]
    # The loss over gathered rows sends first.
    assert sent_in(said[0]["coupled"][1])[0] == "gathered of 24"
    assert sent_in(said[0]["coupled"][1]).count("gathered of 24") == 1


@pytest.fixture
def sent(monkeypatch):
    """What a process of two sends, on a processor that has no partner: (elements, gradients known by then)."""
    found, known = [], []

    class Done:
        def wait(self):
            return True

    def send(tensor, op=None, async_op=False):
        found.append((tensor.numel(), list(known)))
        return Done()

    monkeypatch.setattr("unveil_pretrain.gradient_sums.dist.all_reduce", send)
    monkeypatch.setattr("unveil_pretrain.gradient_sums._MESSAGE", 4)
    return found, known


def layers(known, num=3):
    """Layers of 2 × 2 without bias; their numbers are noted when their gradients are there."""
    module = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(num)))
    for number, layer in enumerate(module):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: known.append(number))
    return module


def test_a_message_leaves_with_its_last_gradient_before_the_next_is_known(sent):
    found, known = sent
    module = layers(known)
    with summed_gradients(World(size=2), module) as sums:
        module(torch.ones(1, 2)).sum().backward()
        assert found == []  # no last pass was announced: gradients are not whole
        known.clear()
        sums.last_pass()
        module(torch.ones(1, 2)).sum().backward()
        assert found == [(4, [2]), (4, [2, 1]), (4, [2, 1, 0])]
    assert found[3] == (3, [2, 1, 0])  # which gradients there are
    found.clear()
    module(torch.ones(1, 2)).sum().backward()
    assert found == []  # nobody listens after the step


def test_messages_wait_for_the_embeddings_and_then_follow_their_order(sent):
    found, known = sent
    module = layers(known)
    before = nn.Linear(2, 2, bias=False)
    both = nn.ModuleList([before, *module])
    rows = before(torch.ones(1, 2))
    with summed_gradients(World(size=2), both) as sums:
        sums.last_pass()
        sums.hold_until([rows])
        module(rows).sum().backward()
        # The three layers are behind the embedding: their messages leave together when its gradient is there.
        assert [known_by_then for _, known_by_then in found[:3]] == [[2, 1, 0]] * 3
        assert len(found) == 4


def test_what_no_backward_pass_reached_is_sent_at_the_end_and_stays_none(sent):
    found, known = sent
    module = layers(known)
    with summed_gradients(World(size=2), module) as sums:
        sums.last_pass()
        module[0](torch.ones(1, 2)).sum().backward()
        assert found == []  # the first message, of the last layer, was not complete
    assert [size for size, _ in found] == [4, 4, 4, 3]
    assert module[2].weight.grad is None
    assert torch.equal(module[0].weight.grad, torch.ones(2, 2))


def test_an_error_in_the_step_leaves_no_listener(sent):
    found, known = sent
    module = layers(known)

    def step():
        with summed_gradients(World(size=2), module) as sums:
            sums.last_pass()
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        step()
    module(torch.ones(1, 2)).sum().backward()
    assert found == []


def test_a_single_process_sends_and_listens_to_nothing(sent):
    found, known = sent
    module = layers(known)
    sums = GradientSums(World(), module)
    sums.last_pass()
    sums.hold_until([torch.ones(1, requires_grad=True)])
    module(torch.ones(1, 2)).sum().backward()
    sums.finish()
    assert found == []
    assert torch.isfinite(module[0].weight.grad).all()


def test_scalars_are_sent_last(sent):
    """The temperature of a contrastive loss has its gradient before the encoders have theirs, and must hold up none."""
    found, known = sent
    module = layers(known)
    module.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
    with summed_gradients(World(size=2), module) as sums:
        module.temperature.square().backward()
        sums.last_pass()
        module(torch.ones(1, 2)).sum().backward()
        assert [size for size, _ in found] == [4, 4, 4]
    assert [size for size, _ in found] == [4, 4, 4, 1, 4]
