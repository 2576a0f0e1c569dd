"""Option groups: what typer sees of them, and what the command gets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from dgpose.cli.option_groups import with_groups


@dataclass(frozen=True)
class Place:
    """Where to."""

    town: Annotated[str, typer.Option(help="Its name.")]
    house: Annotated[int, typer.Option("--number", min=1, help="Of the house.")] = 7
    floor: Annotated[int | None, typer.Option(envvar="FLOOR")] = None


@dataclass(frozen=True)
class Home(Place):
    """A place with another default."""

    house: Annotated[int, typer.Option("--number", help="At home.")] = 42


@dataclass(frozen=True)
class Sender:
    place: Annotated[str, typer.Option(help="Named as the parameter of another group.")] = "here"
    loud: Annotated[bool, typer.Option("--loud")] = False


app = typer.Typer()


@app.command()
@with_groups
def send(
    what: Annotated[str, typer.Argument()],
    times: Annotated[int, typer.Option()] = 1,
    *,
    place: Place,
    last: Annotated[float | None, typer.Option()] = None,
    sender: Sender,
) -> None:
    """Send something."""
    typer.echo(repr((what, times, place, last, sender)))


@app.command()
@with_groups
def home(*, place: Home) -> None:
    typer.echo(repr(place))


def run(*words: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", **environment})
    return result.exit_code, result.output.strip()


def test_values_arrive_in_their_groups() -> None:
    words = "send card --town Bern --number 3 --place there --loud --times 2 --last 1.5"
    expected = ("card", 2, Place("Bern", 3, 5), 1.5, Sender("there", True))
    assert run(*words.split(), FLOOR="5") == (0, repr(expected))


def test_defaults_are_those_of_the_fields() -> None:
    expected = ("card", 1, Place("Bern", 7), None, Sender())
    assert run("send", "card", "--town", "Bern") == (0, repr(expected))
    assert run("home", "--town", "Bern") == (0, repr(Home("Bern", 42)))


@pytest.mark.parametrize(
    ("words", "said"), [("send card", "--town"), ("send card --town Bern --number 0", "--number")]
)
def test_options_are_checked(words: str, said: str) -> None:
    code, output = run(*words.split())
    assert code == 2
    assert said in output


def test_help_shows_the_fields_in_the_place_of_the_group() -> None:
    code, output = run("send", "--help")
    assert code == 0
    assert "Send something." in output
    assert "Its name." in output
    options = ["--times", "--town", "--number", "--floor", "--last", "--place", "--loud"]
    assert sorted(options, key=output.index) == options
    assert "At home." in run("home", "--help")[1]


def test_each_way_to_ask_for_parameters_tells_the_same() -> None:
    names = ["what", "times", "town", "house", "floor", "last", "place", "loud"]
    assert list(inspect.signature(send).parameters) == names
    assert list(inspect.signature(send, follow_wrapped=False).parameters) == names
    assert list(inspect.get_annotations(send)) == names
    assert send.__name__ == "send"


def test_names_that_clash_are_refused_at_once() -> None:
    def twice(*, town: str, place: Place) -> None: ...

    with pytest.raises(ValueError, match="town"):
        with_groups(twice)
