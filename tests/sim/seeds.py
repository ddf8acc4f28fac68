"""What becomes of a seed, for whoever lives through many: nothing is raised here."""

from __future__ import annotations

from tests.sim.world import World


def broken(world: World) -> str | None:
    """Live through a world; return what went wrong, if anything did."""
    try:
        world.run()
    except Exception as error:  # whatever it is, the next seed is another world
        return f"{type(error).__name__}: {error}"
    return None


def broken_by(seed: int) -> str | None:
    """Return what goes wrong in a seed, if anything does."""
    return broken(World(seed))


def story_of(seed: int, lines_max: int) -> str:
    """Return the last lines of a seed's story."""
    story: list[str] = []
    if (wrong := broken(World(seed, story.append))) is not None:
        story.append(wrong)
    return "\n".join(story[-lines_max:])
