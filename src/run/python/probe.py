"""Lets Python probe the project's directories for modules, where it would list them.

An import system that lists a directory depends on every name in it; one that asks
for a module by name depends on that name alone. The answers are the same. What is
outside of the project, or of a Python that is not known, is left as it is.

It lies in the first directory on the path, under the name of the first module that
Python loads when it starts, before it has listed anything else, and under that of one that it
loads before it runs a program, should the first be built into it. Executed under
either name it takes its directory off the path, and loads the module that it hides.

Of a step with a seed it also seeds the global generators of modules, when a program
loads them; it loads none itself. A worker process begins anew with a seed that follows from
which worker it is. What was seeded is told by a look at a path that is not there.
"""

import sys


def _install(work):
    if sys.version_info < (3, 7) or sys.version_info >= (3, 15) or sys.implementation.name != "cpython":
        return
    external = sys.modules["_frozen_importlib_external"]
    finders, join, system = external.FileFinder, external._path_join, external._os
    asked = finders.find_spec.__code__.co_names
    if "_fill_cache" not in asked or "_path_cache" not in asked:
        return

    class Names:
        """The names in a directory, each looked for when it is asked for."""

        __slots__ = ("path",)

        def __init__(self, path):
            self.path = path

        def __contains__(self, name):
            if not name or "/" in name:
                return False
            try:
                system.stat(join(self.path, name))
            except (OSError, ValueError):
                return False
            return True

        def __reduce__(self):
            # Another process may have no such class.
            return set, (system.listdir(self.path),)

    list_names = finders._fill_cache

    def _fill_cache(self):
        path = self.path
        # Others than Python's own may do more with names than to ask for one.
        if type(self) is finders and (path == work or path.startswith(work + "/")):
            # What may not be listed has no names.
            self._path_cache = Names(path) if system.access(path, system.R_OK) else set()
        else:
            list_names(self)

    _fill_cache.__doc__ = list_names.__doc__
    _fill_cache.__module__ = list_names.__module__
    _fill_cache.__qualname__ = list_names.__qualname__
    finders._fill_cache = _fill_cache
    for finder in sys.path_importer_cache.values():
        if type(finder) is finders:
            finder.invalidate_caches()


def _seed(directory):
    if sys.version_info < (3, 8) or sys.version_info >= (3, 15) or sys.implementation.name != "cpython":
        return
    external = sys.modules["_frozen_importlib_external"]
    basics, system = external._LoaderBasics, external._os
    text = system.environ.get(b"PV_SEED")
    if text is None:
        return
    first = int(text)
    # The seed of this process, and how many others it has forked.
    state = [first, 0]
    seeders = {
        "random": lambda module, seed: module.seed(seed),
        "numpy.random": lambda module, seed: module.seed(seed % 2**32),
        "torch": lambda module, seed: module.manual_seed(seed),
        "tensorflow": lambda module, seed: module.random.set_seed(seed),
    }
    seeded = []

    def tell(path):
        try:
            system.stat(directory + path)
        except OSError:
            pass

    def seed(name):
        try:
            seeders[name](sys.modules[name], state[0])
        except Exception:
            tell("/unseeded/" + name)
        else:
            tell("/seeded/" + name)

    def derived(seed, place):
        bits = 2**64 - 1
        seed = seed + 0x9E3779B97F4A7C15 * (place + 1) & bits
        seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & bits
        seed = (seed ^ seed >> 27) * 0x94D049BB133111EB & bits
        return (seed ^ seed >> 31) >> 1

    def before_fork():
        state[1] += 1

    def after_fork():
        # No worker of multiprocessing has such a number.
        state[:] = derived(state[0], 2**32 + state[1]), 0

    def bootstrap(process):
        begin = process._bootstrap

        def _bootstrap(self, parent_sentinel=None):
            try:
                state[:] = first, 0
                for place in self._identity:
                    state[0] = derived(state[0], place)
            except Exception:
                tell("/unseeded/multiprocessing")
            for name in seeded:
                seed(name)
            return begin(self, parent_sentinel)

        process._bootstrap = disguised(_bootstrap, begin)

    def loaded(name):
        if name == "multiprocessing.process":
            bootstrap(sys.modules[name].BaseProcess)
        elif name in seeders:
            if name not in seeded:
                seeded.append(name)
                # A module may have told Python to seed it otherwise in a child; this comes after.
                system.register_at_fork(after_in_child=lambda: seed(name))
            seed(name)

    load = basics.exec_module

    def exec_module(self, module):
        load(self, module)
        try:
            loaded(module.__name__)
        except Exception:
            pass

    def disguised(function, original):
        # What goes wrong in a module is shown without the lines of whoever loads it.
        function.__code__ = function.__code__.replace(co_filename=original.__code__.co_filename)
        function.__doc__ = original.__doc__
        function.__module__ = original.__module__
        function.__qualname__ = original.__qualname__
        return function

    system.register_at_fork(before=before_fork, after_in_child=after_fork)
    basics.exec_module = disguised(exec_module, load)
    tell("/seeded")


_directory = __file__.rpartition("/")[0]
try:
    _install(_directory.rpartition("/")[0] + "/work")
except Exception:
    # Python's own way is as good, only coarser.
    pass
try:
    _seed(_directory)
except Exception:
    # Nothing was told, so nobody takes it for seeded.
    pass

if _directory in sys.path:
    sys.path.remove(_directory)
sys.path_importer_cache.pop(_directory, None)
_self = sys.modules.pop(__name__, None)
# If there is none, that is what Python expects to be told.
__import__(__name__)
