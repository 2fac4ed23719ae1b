"""What the lab's processes are forked from: multiprocessing's fork server imports this module, and from then on forks.

Hence the work at import: TensorFlow and the roles are imported and the context is untouched, as in a warm process of
the service. There is one thread, so that no child inherits a lock that somebody holds; test_lab.py sees to both.
"""

from service.process import Process

FAULTS = Process().warm()["failed"]
