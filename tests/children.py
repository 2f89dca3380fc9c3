"""Child processes that are killed, or train two together, without a fresh interpreter for each.

A server that has imported what is heavy once, and begun nothing else, forks them: that is safe also where this process has threads or a GPU at work.
What a child is to call has to be a function of a test module."""

import multiprocessing
import os
import traceback

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["accelerate", "pytest", "torch._dynamo", "vidiffedu.jobs"])


def child(what, *args, quiet=False):
    "A process that calls what(*args), on one thread; quiet: what it prints is lost."
    process = SERVER.Process(target=_child, args=(quiet, what, *args))
    process.start()
    return process


def _child(quiet, what, *args):
    torch.set_num_threads(1)
    if quiet:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
    what(*args)


def two_processes(what, folder):
    "what(folder) in two gloo processes of one group, with the words that a launcher gives them."
    both = [child(_rank, rank, what, folder, quiet=True) for rank in (0, 1)]
    for process in both:
        process.join(400)
    said = [folder / f"trouble{rank}" for rank in (0, 1)]
    said = [file.read_text()[-2000:] for file in said if file.exists()]
    assert [process.exitcode for process in both] == [0, 0], said


def _rank(rank, what, folder):
    words = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, OMP_NUM_THREADS=1)
    os.environ |= {name: str(value) for name, value in words.items()}
    group = dict(init_method=f"file://{folder}/group", rank=rank, world_size=2)
    torch.distributed.init_process_group("gloo", **group)
    try:
        what(folder)
    except BaseException:
        (folder / f"trouble{rank}").write_text(traceback.format_exc())
        raise
    torch.distributed.destroy_process_group()
