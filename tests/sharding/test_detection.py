"""What a process finds of the others where a launcher has started it: variables as real launchers set them."""

import os

import pytest
from jax._src.clusters import cloud_tpu_cluster

from nmt.errors import UserError
from nmt.sharding.hosts import ALONE, Launch, _found, joined
from nmt.sharding.rollcall import Place

SRUN = {  # the third of 4 tasks on two nodes, two a node
    "SLURM_JOB_ID": "65537",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
MPIRUN4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
GKE = {"TPU_WORKER_HOSTNAMES": "localhost,host-1.svc", "TPU_WORKER_ID": "1", "MEGASCALE_NUM_SLICES": "1"}
SLICES = GKE | {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080",
}


@pytest.fixture
def started(monkeypatch):
    """Set the variables of a launcher, and no others, on a machine with chips or without; return what is found."""

    def start(variables, chips=False):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "PMI_", "TPU_", "MEGASCALE_", "JAX_COORDINATOR")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", chips)
        monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: ("", 404))
        return _found(Launch(join_timeout=1.0))

    return start


def test_a_laptop_asks_nobody(started):
    assert started({}) is None


def test_srun(started):
    place, devices = started(SRUN)
    assert place == Place(f"gpu007:{61440 + 65537 % 4096}", 2, 4)
    assert devices == [0]
    assert started(SRUN | {"JAX_COORDINATOR_PORT": "8476"}).place.coordinator == "gpu007:8476"


@pytest.mark.parametrize("tasks", ["1", "4"])
def test_the_shell_of_salloc_is_alone(started, tasks):
    # Without an interactive step it has the allocation's variables alone, with one those of a step of one task.
    assert started({"SLURM_JOB_ID": "7", "SLURM_NTASKS": tasks, "SLURM_JOB_NODELIST": "gpu007"}) is None
    step = {"SLURM_NTASKS": tasks, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "gpu007"}
    assert started(SRUN | step) is None


def test_open_mpi_4(started):
    place, devices = started(MPIRUN4)
    assert place == Place(f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", 1, 2)
    assert devices == [1]
    assert started(MPIRUN4 | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}) is None


@pytest.mark.parametrize(("rank", "size"), [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")])
def test_another_mpi_is_told_what_to_say(started, rank, size):
    with pytest.raises(UserError, match=rf"process 1 of 2 of an MPI .*distributed\.process=\${rank} .*=\${size}'"):
        started({rank: "1", size: "2"})
    assert started({rank: "0", size: "1"}) is None


def test_workers_of_a_slice_in_gke(started):
    place, devices = started(GKE, chips=True)
    assert (place, devices) == (Place("localhost:8482", 1, 2), None)
    assert started(GKE) is None  # the variables alone are no TPU
    assert started(GKE | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, chips=True) is None


def test_workers_of_two_slices(started):
    assert started(SLICES, chips=True).place == Place("localhost:8482", 3, 4)


def test_workers_of_tpu_vms(started, monkeypatch):
    answers = {
        "agent-worker-number": "1",
        "worker-network-endpoints": "unknown:0:127.0.0.1,unknown:1:10.0.0.3",
        "tpu-env": "ACCELERATOR_TYPE: 'v4-16'",
    }
    started({}, chips=True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (answers[key], 200))
    assert _found(Launch(join_timeout=1.0)).place == Place("127.0.0.1:8482", 1, 2)
    answers |= {"agent-worker-number": "0", "worker-network-endpoints": "unknown:0:10.0.0.2"}
    assert _found(Launch()) is None  # a slice of one host


def test_what_cannot_be_found_out_says_what_to_do(started):
    with pytest.raises(UserError, match=r"looks like a process of gketpu.*distributed\.processes=1 is a process on"):
        started(GKE | {"TPU_WORKER_HOSTNAMES": "nowhere.invalid,b", "TPU_WORKER_ID": "x"}, chips=True)


@pytest.mark.parametrize("variables", [SRUN, MPIRUN4, {"PMI_RANK": "1", "PMI_SIZE": "2"}], ids=str)
def test_detection_is_turned_off(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined(Launch(processes=1), {}, print) as hosts:
        assert hosts is ALONE
