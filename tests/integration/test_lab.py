"""The lab's processes are sound: forked from one thread, with everything imported and nothing used."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

import psutil
import pytest

from service.process import ENVIRONMENT, ROLE_MODULES
from tests.integration import lab

pytestmark = pytest.mark.integration


def describe(connection: Connection) -> None:
    imported = [name for name in ("tensorflow", "keras", *ROLE_MODULES) if name in sys.modules]
    import tensorflow as tf
    from tensorflow.python.eager import context

    was_untouched = not context.context()._initialized
    tf.config.threading.set_intra_op_parallelism_threads(2)
    zygote = psutil.Process(os.getppid())
    environment = {name: zygote.environ().get(name) for name in ENVIRONMENT}
    product = tf.linalg.matmul(tf.ones((700, 700)), tf.ones((700, 700)))
    connection.send((imported, was_untouched, zygote.num_threads(), environment, float(product[0, 0])))


def test_a_process_of_the_lab_has_tensorflow_imported_and_unused_and_comes_from_a_single_thread() -> None:
    before = dict(os.environ)
    mine, theirs = lab.context().Pipe()
    process = lab.context().Process(target=describe, args=(theirs,))
    process.start()
    theirs.close()
    assert mine.poll(30)
    imported, was_untouched, threads, environment, product = mine.recv()
    process.join(10)
    assert process.exitcode == 0
    assert imported == ["tensorflow", "keras", *ROLE_MODULES]
    assert was_untouched
    assert threads == 1, "a thread of the zygote may hold a lock when a child is forked"
    assert environment == ENVIRONMENT
    assert product == 700.0
    assert dict(os.environ) == before
