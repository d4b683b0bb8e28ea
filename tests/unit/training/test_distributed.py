import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from kinema.core.errors import TrainingError
from kinema.training import distributed
from kinema.training.checkpoint import load_resume
from unit.training import two_processes


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_two_processes_train_as_one_does_and_one_failure_stops_both(tmp_path):
    """Batch norm must see both processes: where it does not, the losses differ from the fourth digit on (tried)."""
    result = tmp_path / "result.pt"
    source = Path(distributed.__file__).parents[2]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            two_processes.__file__,
            result,
        ],
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.exists(), run.stderr
    two = load_resume(result)
    assert two["processes"] == 2
    one, numbers = two_processes.train(slice(None))
    for together, alone in zip(two["numbers"], numbers, strict=True):
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-6)
    # Faces: a process that sees none keeps step with the other, and each counts by how many it sees.
    for together, alone in zip(two["faces"], two_processes.train_faces(slice(None)), strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    for name, value in one.system.state_dict().items():
        # Adam turns a gradient of pure rounding (a bias before batch norm) into steps of its full size, 2e-4 each.
        bound = 3 * 2 * 2e-4 if name.endswith(("bias", "running_mean")) else 2e-5
        assert torch.allclose(two["system"][name], value, rtol=1e-4, atol=bound), name
    # The second process failed: one sentence, and the first one did not wait for it.
    assert run.returncode != 0
    assert [line for line in run.stderr.splitlines() if line.startswith("kinema:")] == [
        "kinema: the second process ran out of clips"
    ]
    assert 'Traceback (most recent call last):\n  File "' + two_processes.__file__ not in run.stderr


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (6, 5)), (nn.BatchNorm2d, (4, 5, 3, 3)), (nn.BatchNorm3d, (2, 5, 2, 3, 3))]
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_batch_norm_is_batch_norm(group_of_one, kind, shape, momentum):
    plain, twin = kind(5, momentum=momentum), kind(5, momentum=momentum)
    for norm in (plain, twin):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    twin = distributed._synchronised(twin)
    for _ in range(2):
        inputs = [(3 + 2 * torch.randn(shape)).requires_grad_()]
        inputs.append(inputs[0].detach().clone().requires_grad_())
        outputs = [norm(x) for norm, x in zip((plain, twin), inputs, strict=True)]
        for output in outputs:
            (output * torch.arange(output.numel()).view(shape).sin()).sum().backward()
        assert torch.allclose(*outputs, atol=1e-5)
        assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    assert torch.allclose(plain.weight.grad, twin.weight.grad, atol=1e-4)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, twin.state_dict()[name], atol=1e-5), name
    assert torch.allclose(plain.eval()(inputs[0]), twin.eval()(inputs[0]), atol=1e-5)
    assert twin(torch.zeros(shape, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_conversion_keeps_names_and_parameters_and_refuses_unknown_kinds(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
    before = dict(network.named_parameters())
    names = list(network.state_dict())
    distributed.synchronise_batch_norm(network)
    assert isinstance(network[1][0], distributed.SynchronisedBatchNorm)
    assert list(network.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
    with pytest.raises(TrainingError, match="SyncBatchNorm cannot be averaged over processes"):
        distributed.synchronise_batch_norm(nn.Sequential(nn.SyncBatchNorm(2)))


def test_a_process_alone_changes_nothing():
    values = torch.ones(2)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    distributed.average_gradients([parameter])
    distributed.wait_for_all()
    distributed.copy_from_first(nn.Linear(1, 1))
    assert distributed.average(values) is values
    assert distributed.first_says(0.5) == 0.5
    assert (distributed.rank(), distributed.processes(), distributed.is_first()) == (0, 1, True)


def test_collectives_work_on_weights_that_are_not_contiguous(group_of_one, monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)  # a sum over one process, divided by two
    network = nn.Conv3d(2, 2, 2).to(memory_format=torch.channels_last_3d)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    distributed.copy_from_first(network)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    distributed.average_gradients(network.parameters())
    for before, parameter in zip(gradients, network.parameters(), strict=True):
        assert torch.allclose(parameter.grad, before / 2)
    assert distributed.first_says(0.5) == 0.5


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:", "cuda:99"])
def test_unknown_devices_are_refused(name):
    if name == "cpu:":
        assert distributed.choose_device(name).type == "cpu"
        return
    with pytest.raises(TrainingError, match=r"accepted: auto, cpu, cuda, cuda:N|this machine offers"):
        distributed.choose_device(name)


def test_the_processor_is_chosen_where_there_is_no_gpu():
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert distributed.choose_device().type == wanted
    assert distributed.choose_device("cpu") == torch.device("cpu")
