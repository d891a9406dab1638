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


def _install(place):
    if sys.version_info < (3, 7) or sys.version_info >= (3, 15) or sys.implementation.name != "cpython":
        return
    external = sys.modules["_frozen_importlib_external"]
    finders, join, system = external.FileFinder, external._path_join, external._os
    asked = finders.find_spec.__code__.co_names
    if "_fill_cache" not in asked or "_path_cache" not in asked:
        return
    work = place + "/work"

    class Names:
        """The names in the directory of a finder, each looked for when it is asked for."""

        __slots__ = ("finder",)

        def __init__(self, finder):
            self.finder = finder

        def __contains__(self, name):
            if not name or "/" in name:
                return False
            try:
                system.stat(join(self.finder.path, name))
            except (OSError, ValueError):
                return False
            return True

    def probing(finder):
        """Returns the finder, which lists nothing from now on if its directory is the project's."""
        path = finder.path
        if path == work or path.startswith(work + "/"):
            names = Names(finder)

            def fill():
                # What may not be listed has no names.
                finder._path_cache = names if system.access(path, system.R_OK) else ()

            finder._fill_cache = fill
            finder._path_mtime = -1
        return finder

    def around(hook):
        def path_hook_for_FileFinder(path):
            """Path hook for importlib.machinery.FileFinder."""
            return probing(hook(path))

        path_hook_for_FileFinder.__module__ = hook.__module__
        path_hook_for_FileFinder.__qualname__ = hook.__qualname__
        return path_hook_for_FileFinder

    hooks = [around(hook) if _is_stock(hook, finders) else hook for hook in sys.path_hooks]
    known = [finder for finder in sys.path_importer_cache.values() if type(finder) is finders]
    for finder in known:
        probing(finder)
    sys.path_hooks[:] = hooks


def _is_stock(hook, finders):
    """Returns whether this hook makes plain finders of files."""
    cells = getattr(hook, "__closure__", None) or ()
    made = getattr(hook, "__name__", "") == "path_hook_for_FileFinder"
    return made and any(cell.cell_contents is finders for cell in cells)


def _directory():
    return __file__.rpartition("/")[0]


try:
    _install(_directory().rpartition("/")[0])
except Exception:
    # Python's own way is as good, only coarser.
    pass

if _directory() in sys.path:
    sys.path.remove(_directory())
sys.path_importer_cache.pop(_directory(), None)
_self = sys.modules.pop(__name__, None)
# If there is none, that is what Python expects to be told.
__import__(__name__)
