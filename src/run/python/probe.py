"""Lets Python probe the project's directories for modules, where it would list them.

An import system that lists a directory depends on every name in it; one that asks
for a module by name depends on that name alone. The answers are the same. What is
outside of the project, or of a Python that is not known, is left as it is.

It lies in the first directory on the path, under the name of the first module that
Python loads when it starts, before it has listed anything else, and under that of one that it
loads before it runs a program, should the first be built into it. Executed under
either name it takes its directory off the path, and loads the module that it hides.
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


_directory = __file__.rpartition("/")[0]
try:
    _install(_directory.rpartition("/")[0] + "/work")
except Exception:
    # Python's own way is as good, only coarser.
    pass

if _directory in sys.path:
    sys.path.remove(_directory)
sys.path_importer_cache.pop(_directory, None)
_self = sys.modules.pop(__name__, None)
# If there is none, that is what Python expects to be told.
__import__(__name__)
