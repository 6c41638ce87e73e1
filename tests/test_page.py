"""The chat page in Chromium, with replies from a script."""

from __future__ import annotations

import pytest
from chat_page import Page, chromium, needs_chromium
from conversations import said, talk
from hostile_markdown import PAYLOADS
from scripted_backend import ENDLESS, ScriptedBackend
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from served import running

from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.runtime import default_model

pytestmark = needs_chromium
RICH = """## Plan

1. Mix **flour** with `water`
   - warm
2. Wait

```python
print("a line that is far too long for a narrow screen, so that its block has to scroll alone")
```

| Flour | Water | Time | A fourth column |
| --- | ---: | --- | --- |
| Wheat | 300 g | an hour or a little longer | unbreakable_unbreakable_word |

See [the book](https://example.com/book) and ![a loaf](https://example.com/loaf.png).
"""


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("page") / "history.db"


@pytest.fixture(scope="module")
def backend():
    return ScriptedBackend()


@pytest.fixture(scope="module")
def served(model, path, backend):
    with History.open(path) as history, running(model, history=history, backend=backend) as server:
        yield server


@pytest.fixture
def page(driver, served, backend):
    backend.script.clear()
    backend.full = False
    page = Page(driver, served.url)
    page.resize(1280, 800)
    page.open()
    return page


@pytest.fixture
def cli(path):
    """The history, as a command has it."""
    with History.open(path) as history:
        yield history


def test_a_question_gets_a_reply_that_is_laid_out_and_kept(page, backend, cli):
    backend.script += ["<think>\nBread it is.\n</think>\n\n" + RICH]
    page.ask("How do I bake?")
    assert page.text(".bubble") == "How do I bake?"
    assert [page.text(f".prose {tag}") for tag in ("h3", "ol > li ul li", "strong", "th")] == [
        *("Plan", "warm", "flour", "Flour")
    ]
    assert page.text(".code-head span") == "python"
    assert page.text("pre").startswith('print("a line')
    links = page.all(".prose a")
    assert [(link.text, link.get_attribute("href")) for link in links] == [
        ("the book", "https://example.com/book"),
        ("a loaf", "https://example.com/loaf.png"),
    ]
    assert all("noopener" in link.get_attribute("rel") for link in links)
    assert not page.all(".turn img")
    assert "tokens/s" in page.text(".facts")
    assert page.text("#context-text").endswith("/ 1,024")
    assert page.one("details").get_attribute("open") is None  # thinking is folded
    assert page.run("return document.querySelector('.thought').textContent") == "Bread it is."
    number = page.number()
    kept = "<think>\nBread it is.\n</think>\n\n" + RICH
    page.wait(lambda: said(cli, number)[1:] == [kept])
    page.open(f"#{number}")  # it is there after a reload
    page.wait(lambda: len(page.turns()) == 2)
    assert page.text(".prose h3") == "Plan"
    assert page.run("return document.querySelector('.thought').textContent") == "Bread it is."


def test_nothing_that_a_model_writes_runs(page, backend):
    assert len(PAYLOADS) >= 50
    page.run(
        "window.hits = 0; window.hit = () => window.hits++; window.blocked = [];"
        "addEventListener('securitypolicyviolation', (e) => blocked.push(e.blockedURI));"
    )
    page.driver.get_log("performance")
    backend.script += ["\n\n".join(PAYLOADS), "<think>" + "\n\n".join(PAYLOADS)]
    page.ask("<img src=x onerror=hit()>")
    page.ask("Again")
    page.run("for (const e of document.querySelectorAll('details, a')) e.open = true;")
    links = page.run("return [...document.querySelectorAll('.turn a')].map((a) => a.protocol)")
    assert set(links) == {"https:"}
    foreign = "script, img, iframe, object, embed, video, audio, input, base, meta, link, style"
    assert not page.all(", ".join(f".turn {tag}" for tag in foreign.split(", ")))
    spied = "return [...document.querySelectorAll('.turn *')].some((e) => [...e.attributes].some("
    assert not page.run(spied + "(a) => a.name.startsWith('on')))")
    for text in ("<script>hit()</script>", "<svg onload=hit()>", "<base href="):
        assert text in page.turns()[1]
    assert (page.run("return hits"), page.run("return blocked")) == (0, [])
    requests = [entry["message"] for entry in page.driver.get_log("performance")]
    assert not [r for r in requests if "requestWillBeSent" in r and "evil.example/" in r[:600]]


def test_escape_stops_a_reply_and_what_came_stays(page, backend, cli):
    backend.cancelled.clear()
    backend.script += [ENDLESS]
    page.type("Go on", Keys.ENTER)
    page.wait(lambda: page.turns()[1:] == ["The first words"])
    assert page.one("#send").get_attribute("aria-label") == "Stop the reply"
    page.type(Keys.ESCAPE)
    page.idle()
    assert backend.cancelled.wait(20)
    assert page.text(".facts").startswith("Stopped")
    number = page.number()
    ends = [None, "cancelled"]
    page.wait(lambda: [m.finish_reason for m in cli.messages(number)] == ends)
    assert said(cli, number) == ["Go on", "The first words"]


def test_other_replies_and_edited_questions_are_branches(page, backend, cli):
    backend.script += ["One", "Two", "Three"]
    page.ask("First")
    page.click("Another reply")
    page.wait(lambda: page.turns() == ["First", "Two"])
    page.idle()
    assert page.text(".switch span") == "2/2"
    page.click("The version before")
    assert page.turns() == ["First", "One"]
    page.click("Edit the message")
    page.type(" and last", Keys.ENTER)
    page.wait(lambda: page.turns() == ["First and last", "Three"])
    page.idle()
    page.click("The version before")
    assert page.turns() == ["First", "Two"]  # the newest end of that branch
    number = page.number()
    page.wait(lambda: said(cli, number) == ["First", "Two"])
    page.wait(lambda: len(cli.all_messages(number)) == 5)


def test_other_tabs_and_commands_are_seen_at_once(page, backend, cli):
    backend.script += ["Reply"]
    number = talk(cli, "From the command line", "Hello")
    page.wait(lambda: page.text("#list .name") == "From the command line")
    page.open(f"#{number}")
    page.wait(lambda: page.turns() == ["From the command line", "Hello"])
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open(f"#{number}")
    page.wait(lambda: len(page.turns()) == 2)
    page.ask("From a tab")
    page.wait(lambda: said(cli, number)[3:] == ["Reply"])
    page.driver.close()
    page.driver.switch_to.window(first)
    said_now = ["From the command line", "Hello", "From a tab", "Reply"]
    page.wait(lambda: page.turns() == said_now)
    cli.rename(number, "Another title")
    page.wait(lambda: page.text("#title") == "Another title")
    cli.delete(number)
    page.wait(lambda: page.text("#title") == "New chat")
    assert page.turns() == []


def test_all_of_it_works_with_the_keyboard_alone(page, backend, cli):
    number = talk(cli, "Keyboard sourdough", "Knead it")
    page.wait(lambda: page.text("#list .name") == "Keyboard sourdough")
    page.chord(Keys.CONTROL, "k")
    page.type("kneading", *[Keys.BACKSPACE] * 3)
    page.wait(lambda: page.text("#list .excerpt") == "Knead it")
    page.type(Keys.TAB, Keys.ENTER)
    page.wait(lambda: page.turns() == ["Keyboard sourdough", "Knead it"])
    focused = "return document.activeElement.dataset.key"
    assert page.run(focused) == f"open-{number}"  # where it was, though the list is a new one
    page.type(Keys.TAB, Keys.ENTER)
    page.wait(lambda: page.active("textContent") == "Rename")
    page.type(Keys.ENTER)
    page.wait(lambda: page.active("tagName") == "INPUT")
    page.type("Dough", Keys.ENTER)
    page.wait(lambda: cli.conversation(number).title == "Dough")
    page.wait(lambda: page.text("#title") == "Dough")
    names = "return [...document.querySelectorAll('button, input, textarea, a, [tabindex]')]"
    unnamed = ".filter((e) => !(e.ariaLabel || e.innerText || e.labels?.length || e.hidden))"
    assert page.run(names + unnamed + ".map((e) => e.outerHTML)") == []
    seen = set()
    for _ in range(40):  # no trap: Tab comes round
        page.type(Keys.TAB)
        seen.add(page.active("id"))
    assert {"message", "search", "new-chat", "theme", "settings-open", "log"} <= seen
    page.one("#message").send_keys("One", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two")
    assert page.run("return document.querySelector('#message').value") == "One\ntwo"


def test_conversations_are_deleted_after_a_question(page, cli):
    number = talk(cli, "To be deleted")
    page.wait(lambda: page.text("#list .name") == "To be deleted")
    page.click("What to do with To be deleted")
    page.type(Keys.ARROW_UP, Keys.ENTER)
    page.wait(lambda: page.text("#ask-title") == "Delete the conversation?")
    page.type(Keys.ESCAPE)
    page.wait(lambda: not page.one("#ask").get_attribute("open"))
    page.click("What to do with To be deleted")
    page.type(Keys.ARROW_UP, Keys.ENTER)
    page.wait(lambda: page.one("#ask").get_attribute("open"))
    page.one("#ask .danger").click()
    page.wait(lambda: number not in [c.id for c in cli.list()])


def test_a_question_asked_again_before_the_first_has_closed_is_answered(page, cli):
    number = talk(cli, "Twice asked")
    page.wait(lambda: page.text("#list .name") == "Twice asked")
    page.run("""
        const ask = () => {
            document.querySelector("[aria-label='What to do with Twice asked']").click();
            document.querySelector("#menu .danger").click();
        };
        ask();
        document.querySelector("#ask").close();  // its event comes with the next frame
        ask();
    """)
    page.one("#ask .danger").click()
    page.wait(lambda: number not in [c.id for c in cli.list()])


def test_settings_are_sent_and_kept_with_the_conversation(page, backend, cli):
    backend.script += ["Yes"]
    page.click("Settings")
    fields = {field.text.split("\n")[0]: field for field in page.all("#settings .field")}
    assert fields["Top-k"].find_element(By.TAG_NAME, "input").get_attribute("placeholder") == "40"
    temperature = fields["Temperature"].find_element(By.TAG_NAME, "input")
    temperature.send_keys("1000", Keys.TAB)
    assert page.text(".wrong") == "Expected a number from 0 to 100"
    temperature.clear()
    temperature.send_keys("0.25", Keys.TAB)
    fields["System prompt"].find_element(By.TAG_NAME, "textarea").send_keys("Rhyme", Keys.TAB)
    page.click("Close the settings")
    page.ask("Hi")
    assert backend.jobs[-1].request.sampling.temperature == 0.25
    kept = cli.conversation(page.number())
    assert (kept.system, kept.settings) == ("Rhyme", {"temperature": 0.25})
    page.run("localStorage.clear()")


def test_errors_are_told_with_their_mend(page, backend):
    backend.full = True
    page.ask("Hi")
    page.wait(lambda: "come again in 2 s" in (page.text(".problem p") or ""))
    backend.full = False
    backend.script += ["Hello"]
    page.one(".problem button").click()
    page.wait(lambda: page.turns() == ["Hi", "Hello"])
    page.idle()
    assert not page.all(".problem")


def test_a_narrow_screen_scrolls_downwards_only(page, backend):
    backend.script += [RICH]
    page.ask("A question with " + "avery" * 20 + "longword")
    page.resize(320, 640)
    overflow = "return document.documentElement.scrollWidth > 320 || %s"
    log = "document.querySelector('#log').scrollWidth > document.querySelector('#log').clientWidth"
    assert not page.run(overflow % log)
    page.click("Show conversations")
    assert not page.run(overflow % "false")
    page.wait(lambda: page.active("id") == "search")
    page.type(Keys.ESCAPE)
    page.wait(lambda: not page.one("#side").is_displayed())
    page.click("Settings")
    drawer = "document.querySelector('#settings')"
    assert not page.run(overflow % f"{drawer}.scrollWidth > {drawer}.clientWidth")
    page.click("Close the settings")


def test_it_asks_for_the_key_and_chats_without_a_history(model, driver):
    backend = ScriptedBackend()
    with running(model, backend=backend, api_key="secret") as server:
        page = Page(driver, server.url)
        page.resize(1280, 800)
        driver.get(server.url)
        page.wait(lambda: page.text("#ask-title") == "API key")
        page.type("wrong", Keys.ENTER)
        page.wait(lambda: "That was not the key" in (page.text("#ask p") or ""))
        page.type("secret", Keys.ENTER)
        page.wait(lambda: page.text("#list-note") == "Conversations are not kept here.")
        backend.script += ["One", "Two"]
        page.ask("First")
        page.ask("Second")
        assert page.turns() == ["First", "One", "Second", "Two"]
        assert page.run("return [sessionStorage.length, localStorage.length]") == [1, 0]
