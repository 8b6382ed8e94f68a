"""What goals of each intent are made of, as data, and finding the intent in a goal's words. Pure.

Efforts and values are the planner's prior: shares of the time and of the outcome, each adding up to 100 over
a template. They are rules of thumb, and the user's own history corrects the time.
"""

import re
from dataclasses import dataclass

from app.jobs.ffe import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on the way to a goal; ``needs`` are numbers of earlier steps of the template, from 1."""

    title: str
    what: str
    criterion: str
    effort: int  # percent of the time, at least 8: that is a block even of half of the smallest goal
    value: int  # percent of the outcome
    needs: tuple[int, ...] = ()


def find_intent(description: str) -> Intent:
    """Return the intent of the first telling word, so that "learn to write" is about learning."""
    for word in re.findall(r"[a-z]+", description.lower()):
        if word in _INTENT_OF:
            return _INTENT_OF[word]
    return Intent.DEFAULT


_WORDS = {
    Intent.LEARN: "learn learning study studying understand master mastering practise practice memorize train course "
    "exam certification",
    Intent.BUILD: "build building develop developing create creating implement implementing code program make launch "
    "ship deploy design prototype app website",
    Intent.WRITE: "write writing draft essay article book thesis report blog paper novel document publish",
    Intent.ORGANIZE: "organize organise organizing organising plan planning arrange sort declutter tidy clean schedule "
    "coordinate move event",
}
_INTENT_OF = {word: intent for intent, words in _WORDS.items() for word in words.split()}


def _step(title: str, what: str, criterion: str, effort: int, value: int, *needs: int) -> Step:
    return Step(title=title, what=what, criterion=criterion, effort=effort, value=value, needs=needs)


TEMPLATES: dict[Intent, tuple[Step, ...]] = {
    Intent.LEARN: (
        _step("Say what you want to be able to do", "Write down what you can do when this is learnt, and how you "
              "would notice.", "Three things to be able to do are written down, each with a test.", 8, 14),
        _step("Gather the material", "Pick one main source, and one for looking things up.",
              "One main source and one reference lie ready.", 8, 8, 1),
        _step("Get the overview", "Skim the main source and draw how its parts hang together.",
              "A one-page map names every part and what it rests on.", 12, 12, 2),
        _step("Learn the core ideas", "Work through the parts that the rest of the map rests on.",
              "Each core idea is explained in your own words without looking.", 24, 26, 3),
        _step("Practise", "Do exercises that use the core ideas, the hard ones last.",
              "Ten exercises are solved, and every mistake has a note.", 26, 24, 4),
        _step("Recall without the source", "Close the source, write down all you know, then fill the gaps.",
              "A page written from memory has its gaps marked and filled.", 10, 8, 4),
        _step("Show that you can do it", "Take the tests of the first step, or teach somebody.",
              "Each test of the first step is passed, or has a date to be tried again.", 12, 8, 5, 6),
    ),
    Intent.BUILD: (
        _step("Say what it must do", "Write down who uses it, for what, and what it need not do.",
              "The few things it must do are written down, each so that it can be checked.", 10, 16),
        _step("Design the parts", "Sketch the parts, what they pass to each other, and the riskiest one.",
              "A sketch names every part and the riskiest one.", 12, 12, 1),
        _step("Set up the workplace", "Get tools, materials and accounts ready, and try each once.",
              "The smallest possible thing has been made with the tools from end to end.", 8, 6, 1),
        _step("Build the core", "Build the riskiest part and the one path that makes it useful.",
              "The most important thing it must do works in front of somebody.", 28, 34, 2, 3),
        _step("Build the rest", "Add what else it must do, in the order of use.",
              "Everything on the list of the first step can be done.", 20, 14, 4),
        _step("Test and mend", "Check each point of the list, and mend what fails.",
              "Each point of the list is checked, and no known fault stops its use.", 12, 10, 4),
        _step("Hand it over", "Bring it to those who use it, with the few words they need.",
              "Somebody else uses it without help.", 10, 8, 5, 6),
    ),
    Intent.WRITE: (
        _step("Say who reads it and why", "Write down the reader, the one message, and the length.",
              "Reader, message and length stand in three sentences.", 8, 14),
        _step("Gather the facts", "Collect what the message rests on, with its sources.",
              "Every claim that will be made has a source beside it.", 16, 14, 1),
        _step("Outline", "Put the points in the order in which the reader needs them.",
              "An outline has one line a paragraph.", 10, 16, 2),
        _step("Draft", "Write from the outline to the end, without polishing.",
              "There is a whole text from the first to the last point of the outline.", 30, 32, 3),
        _step("Prepare figures and references", "Make what the text points to.",
              "Every figure and reference that the text names exists.", 10, 6, 3),
        _step("Revise", "Read it aloud, cut, and move what stands in the wrong place.",
              "It has been read aloud once, and each paragraph says one thing.", 16, 12, 4),
        _step("Proofread and hand it in", "Check spelling, names and numbers, then send it.",
              "It has reached its reader.", 10, 6, 5, 6),
    ),
    Intent.ORGANIZE: (
        _step("Say what order means here", "Write down how it should be when it is done, and what may stay as it is.",
              "The wished-for state stands in a few sentences.", 8, 16),
        _step("Take stock", "List everything and everybody concerned.",
              "A list holds all that is to be put in order.", 16, 14, 1),
        _step("Decide what goes", "Mark what is kept, given away, done by others or dropped.",
              "Every line of the list has its mark.", 12, 18, 2),
        _step("Make places and rules", "Give each kind a place, a date or a person.",
              "Each kind on the list has a place, a date or a person.", 12, 14, 3),
        _step("Do the big pieces", "Bring the largest kinds into order first.",
              "The largest kinds are where they belong.", 28, 22, 4),
        _step("Tell those concerned", "Tell everybody what changes for them, and get their word.",
              "Everybody on the list has answered.", 10, 8, 4),
        _step("Do the rest and keep it so", "Finish the small pieces, and set a date to look again.",
              "Nothing on the list is open, and a date to look again is set.", 14, 8, 5, 6),
    ),
    Intent.DEFAULT: (
        _step("Say what done looks like", "Write down how you will know that the goal is reached.",
              "One sentence says how to tell that the goal is reached.", 8, 16),
        _step("Find out what it takes", "Look for what is known, who has done it, and what stands in the way.",
              "The three largest obstacles are written down.", 14, 12, 1),
        _step("Get ready", "Get what you need, and try it once.",
              "All that is needed lies ready.", 8, 8, 1),
        _step("Do the part that matters most", "Do what brings most of the outcome.",
              "What matters most is there, and can be shown.", 30, 36, 2, 3),
        _step("Do the rest", "Do what is still missing.",
              "Nothing that the goal needs is missing.", 20, 12, 4),
        _step("Check it", "Hold it against the sentence of the first step.",
              "Every gap to the first step's sentence is closed or noted.", 10, 10, 4),
        _step("Finish and look back", "Hand it over, and note what you would do differently.",
              "It is handed over, and three lessons are noted.", 10, 6, 5, 6),
    ),
}  # fmt: skip
