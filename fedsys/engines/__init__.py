"""Where a cohort is trained: engines by name, none of them loaded before it is used."""

from fedsys.choices import Family
from fedsys.engines.choice import EngineChoice, Status
from fedsys.engines.flower import Flower
from fedsys.engines.in_process import Compiled
from fedsys.engines.ray import Ray
from fedsys.engines.tff import Tff
from fedsys.errors import EngineError

ENGINES = Family("engine", {"compiled": Compiled, "ray": Ray, "flower": Flower, "tff": Tff})


def chosen(engine: EngineChoice | str) -> EngineChoice:
    """The engine that is meant, by name or as it is.

    Raises UsageError for one that is not known, and EngineError, with the command that mends it,
    for one that lacks something here.
    """
    choice: EngineChoice = ENGINES.parse(engine) if isinstance(engine, str) else engine
    name, status = ENGINES.name_of(choice), choice.status()
    if status.missing:
        raise EngineError(f"engine {name!r}: {status.missing}: fedsys engines install {name}")
    return choice


__all__ = ["ENGINES", "Compiled", "EngineChoice", "Flower", "Ray", "Status", "Tff", "chosen"]
