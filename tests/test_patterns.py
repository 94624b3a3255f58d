"""Patterns of tensor names, compared with a slow matcher that tries every way; invalid patterns."""

import re
import string
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from winit_fast.base.patterns import Matcher, Pattern


def ways(pattern, name, numbers=(), after_digit=False):
    """Every way to match, found by trying all of them; the longest "*" comes first."""
    if not pattern:
        if not name:
            yield dict(numbers)
        return
    if pattern[0] == "*":
        for end in range(len(name), -1, -1):
            digit = name[end - 1].isdigit() if end else after_digit
            yield from ways(pattern[1:], name[end:], numbers, digit)
        return
    brace = re.match(r"\{(\w+)\}", pattern)
    if brace:
        run = re.match("[0-9]*", name)[0]
        if run and len(run) <= 18 and not after_digit:
            more = (*numbers, (brace[1], int(run)))
            yield from ways(pattern[brace.end() :], name[len(run) :], more, True)
    elif name and name[0] == pattern[0]:
        yield from ways(pattern[1:], name[1:], numbers, name[0].isdigit())


@examples(1000)
@given(
    st.lists(st.sampled_from(["*", "{i}", "{j}", "a", "b.", ".", "a.b"]), max_size=7).map("".join),
    st.lists(st.sampled_from(["a", "b", ".", "1", "23", "a.b"]), max_size=8).map("".join),
)
def test_the_same_as_trying_every_way(text, name):
    if text.count("{i}") > 1 or text.count("{j}") > 1 or "}{" in text:
        with pytest.raises(ValueError, match="pattern must have"):
            Pattern(text)
        return
    assert Pattern(text).match(name) == next(ways(text, name), None)


def test_stars_against_every_text_of_two_letters():
    texts = ["".join(letters) for size in range(7) for letters in product("ab", repeat=size)]
    for text in (
        "*",
        "**",
        "a*",
        "*a",
        "a*b",
        "*ab*",
        "*a*a*",
        "*ab*ab",
        "a*a",
        "ab*ab*",
        "*aba*a",
    ):
        pattern = Pattern(text)
        for name in texts:
            assert (pattern.match(name) is not None) == any(True for _ in ways(text, name))


@pytest.mark.parametrize("character", string.punctuation.replace("*", "") + "\n é\0")
def test_every_other_character_stands_for_itself(character):
    for text in (character, f"w{character}0", f"[{character}]", f"{character}*"):
        pattern = Pattern(text)
        assert pattern.match(text.replace("*", "x")) == {}
        assert pattern.match("w00") is None and pattern.match("wx") is None


def test_numbers_are_whole():
    assert Pattern("h.*{i}").match("h.12") == {"i": 12}
    assert Pattern("*.{i}.*").match("a.1.b.23.c") == {"i": 23}
    assert Pattern("{i}.{j}").match("7.8") == {"i": 7, "j": 8}
    assert list(Pattern("{i}.{j}").match("7.8")) == ["i", "j"]
    assert Pattern("h.{i}").match(f"h.{10**18 - 1}") == {"i": 10**18 - 1}
    assert Pattern("h.{i}").match(f"h.{10**18}") is None
    assert Pattern("h.{i}").match("h.\u0663") is None  # a Unicode digit, but not 0 to 9
    assert Pattern("1*{i}").match("12") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{i}.{i}", "pattern must have different names in its braces, got '{i}.{i}'"),
        ("{1}", "pattern must have different names in its braces, got '{1}'"),
        ("{i}{j}", "pattern must have text between two numbers in braces, got '{i}{j}'"),
        ("h{i}0", "pattern must not have a digit next to {i}, got 'h{i}0'"),
        ("h1{i}", "pattern must not have a digit next to {i}, got 'h1{i}'"),
        ("{i}{i}" * 1000, "got '{i}{i}"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Pattern(text)
    assert len(str(error.value)) < 200


def test_what_is_no_text():
    with pytest.raises(TypeError, match="pattern must be a str, got 3"):
        Pattern(3)


def test_no_pattern_takes_long():
    """Without atomic groups each of these would take longer than the age of the universe."""
    name = "a" * 2000
    assert Pattern("*a" * 400 + "b").match(name) is None
    assert Pattern("*a" * 400 + "*b*").match(name) is None
    assert Pattern("a*" * 400 + "a").match(name) == {}
    assert Pattern("*{i}*{j}*{k}*{l}*b").match("1." * 1000) is None
    assert Pattern("*" * 2000 + "b").match(name) is None


def test_a_template_has_the_numbers_names():
    assert Pattern("h.{i}.*.{j}").template("h.12.mlp.3.x.4") == "h.{i}.mlp.3.x.{j}"
    assert Pattern("*.bias").template("h.12.bias") == "h.12.bias"
    with pytest.raises(ValueError, match="name must match 'a', got 'b'"):
        Pattern("a").template("b")


def test_the_first_pattern_counts_plain_names_too():
    matcher = Matcher([("a.*", 1), ("a.b", 2), ("c", 3), ("*", 4), ("c", 5), (Pattern("d"), 6)])
    found = {name: matcher.find(name).value for name in ("a.b", "c", "d", "e")}
    assert found == {"a.b": 1, "c": 3, "d": 4, "e": 4}
    assert Matcher([]).find("a") is None
    assert Matcher([("b", 1), ("c*", 2)]).find("a") is None
    assert Matcher([("h.{i}", "x")]).find("h.3") == (Pattern("h.{i}"), "x", {"i": 3})


def test_patterns_that_match_nothing_are_idle_but_not_those_that_come_too_late():
    matcher = Matcher([("*", 1), ("a", 2), ("b", 3), ("b*", 4), ("a*", 5)])
    assert [pattern.text for pattern in matcher.idle(["a", "c"])] == ["b", "b*"]


def test_patterns_are_compiled_once(monkeypatch):
    """At the first name that ends as they do, and never if there is none."""
    compiled = []
    original = re.compile
    monkeypatch.setattr(re, "compile", lambda *given: compiled.append(given) or original(*given))
    matcher = Matcher([("*.c", 0), ("a*", 1), ("b*", 2)])
    assert compiled == []
    assert [matcher.find(f"b{i}").value for i in range(3)] == [2, 2, 2]
    assert len(compiled) == 2  # "a*" and "b*"
