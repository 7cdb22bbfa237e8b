"""Finds all that implements an interface, so that a contract test can tell whom it leaves out."""

import inspect
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType


@cache
def modules_of(package: str) -> tuple[ModuleType, ...]:
    """Import a package with all that is in it, and return its modules."""
    root = import_module(package)
    names = [each.name for each in walk_packages(root.__path__, f"{package}.")]
    names = [name for name in names if not name.endswith(".__main__")]  # importing one runs it
    return (root, *(import_module(name) for name in names))


def methods_of(interface: type) -> frozenset[str]:
    """Return the names of an interface's own and inherited methods and properties."""
    return frozenset(
        name
        for each in interface.__mro__
        if getattr(each, "_is_protocol", False)
        for name, member in vars(each).items()
        if name[0] != "_" and inspect.isfunction(member)
    )


def implementations(interface: type, package: str) -> set[type]:
    """Return the classes of a package that have all methods of an interface."""
    wanted = methods_of(interface)
    assert wanted
    return {
        member
        for module in modules_of(package)
        for member in vars(module).values()
        if inspect.isclass(member)
        and member.__module__ == module.__name__
        and not getattr(member, "_is_protocol", False)
        and all(callable(getattr(member, name, None)) for name in wanted)
    }
