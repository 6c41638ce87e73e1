"""Each button of the chat page does what its label says, clicked in Chromium."""

from __future__ import annotations

import pytest
from chat_page import Page, chromium, needs_chromium
from conversations import said, talk
from scripted_backend import ENDLESS, ScriptedBackend
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from served import running

from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.runtime import default_model

pytestmark = needs_chromium
BUTTON = "button[aria-label='{}']"


@pytest.fixture(scope="module")
def backend():
    return ScriptedBackend()


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    with History.open(tmp_path_factory.mktemp("page") / "history.db") as history:
        yield history


@pytest.fixture(scope="module")
def opened(backend, cli):
    with (
        Model.load(default_model()) as model,
        running(model, history=cli, backend=backend) as server,
        chromium() as driver,
    ):
        origin = {
            "origin": server.url,
            "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
        }
        driver.execute_cdp_cmd("Browser.grantPermissions", origin)
        yield Page(driver, server.url)


@pytest.fixture
def page(opened, backend):
    backend.script.clear()
    opened.resize(1280, 800)
    opened.open()
    return opened


def press(page, selector):
    """Click as a mouse does: what is hidden or covered cannot be clicked.

    What was drawn anew between finding and clicking it is found again.
    """
    again = [StaleElementReferenceException]
    wait = WebDriverWait(page.driver, 20, ignored_exceptions=again)
    wait.until(lambda _: page.one(selector).click() or True)


def test_send_and_stop(page, backend):
    backend.cancelled.clear()
    backend.script += [ENDLESS]
    assert not page.one("#send").is_enabled()  # there is nothing to send
    page.one("#message").send_keys("Go on")
    press(page, BUTTON.format("Send"))
    page.wait(lambda: page.turns() == ["Go on", "The first words"])
    press(page, BUTTON.format("Stop the reply"))
    page.idle()
    assert backend.cancelled.wait(20)


def test_copies_are_of_the_source(page, backend):
    code = 'print("<b>")\n    # end'
    backend.script += [f"Try **this**:\n\n```python\n{code}\n```"]
    page.ask("How?")
    for label, expected in (
        (".assistant [aria-label='Copy the message']", f"Try **this**:\n\n```python\n{code}\n```"),
        ("[aria-label='Copy the code']", code),
        (".user [aria-label='Copy the message']", "How?"),
    ):
        page.run("document.querySelector('#status').textContent = ''")
        press(page, label)
        page.wait(
            lambda: page.run("return document.querySelector('#status').textContent") == "Copied"
        )
        read = "navigator.clipboard.readText().then(arguments[0])"
        assert page.driver.execute_async_script(read) == expected


def test_the_theme_is_switched_and_kept(page):
    def shade():
        return page.run("return getComputedStyle(document.body).backgroundColor")

    page.run("localStorage.clear()")
    before = shade()
    there, back = ["Use the dark theme", "Use the light theme"]
    if page.one("#theme").get_attribute("aria-label") == back:
        there, back = back, there
    press(page, BUTTON.format(there))
    page.wait(lambda: shade() != before)
    page.open()
    assert shade() != before
    press(page, BUTTON.format(back))
    page.wait(lambda: shade() == before)
    page.run("localStorage.clear()")


def test_versions_of_a_message(page, backend):
    backend.script += ["One", "Two"]
    page.ask("First")
    press(page, BUTTON.format("Another reply"))
    page.wait(lambda: page.turns() == ["First", "Two"])
    page.idle()
    assert not page.one(BUTTON.format("The next version")).is_enabled()
    press(page, BUTTON.format("The version before"))
    page.wait(lambda: page.turns() == ["First", "One"])
    press(page, BUTTON.format("The next version"))
    page.wait(lambda: page.turns() == ["First", "Two"])


def test_an_edit_is_sent_or_left(page, backend):
    backend.script += ["One", "Two"]
    page.ask("First")
    for button, turns in (
        (".edit button:not(.primary)", ["First", "One"]),
        (".edit .primary", None),
    ):
        press(page, BUTTON.format("Edit the message"))
        page.type(" and last")
        press(page, button)
        page.wait(lambda turns=turns: page.turns() == (turns or ["First and last", "Two"]))
    page.idle()


def test_a_new_chat_is_empty_and_the_old_one_stays(page, backend, cli):
    backend.script += ["Reply"]
    page.ask("Stay")
    number = page.number()
    press(page, "#new-chat")
    page.wait(lambda: page.turns() == [])
    assert page.text("#title") == "New chat"
    page.wait(lambda: said(cli, number) == ["Stay", "Reply"])
    press(page, f"[data-key='open-{number}']")
    page.wait(lambda: page.turns() == ["Stay", "Reply"])
    press(page, "a.brand")
    page.wait(lambda: page.run("return location.hash") == "" and page.turns() == [])


def test_settings_go_back_to_the_model_s(page, backend):
    backend.script += ["Yes"]
    page.run("localStorage.clear()")
    press(page, BUTTON.format("Settings"))
    field = page.one("#settings .fields .field input")
    default = field.get_attribute("placeholder")
    field.send_keys("0.25", Keys.TAB)
    page.one("#settings .buttons button").click()
    assert page.one("#settings .fields .field input").get_attribute("value") == ""
    press(page, BUTTON.format("Close the settings"))
    page.ask("Hi")
    assert backend.jobs[-1].request.sampling.temperature == float(default)


@pytest.mark.parametrize("late", [False, True], ids=["in frames", "before a frame"])
def test_a_long_reply_is_followed_to_its_end(page, backend, late):
    if late:  # the page draws once a frame: here all of the reply is there before the first
        page.run("window.requestAnimationFrame = (draw) => setTimeout(draw, 5000)")
    backend.script += ["\n\n".join(f"Line {i}" for i in range(100))]
    page.ask("Count")
    assert page.turns()[-1].endswith("Line 99")
    left = "const e = arguments[0]; return e.scrollHeight - e.scrollTop - e.clientHeight"
    page.wait(lambda: page.run(left, page.one("#log")) < 2)
    page.run("document.querySelector('#log').scrollTop = 0")
    page.wait(lambda: page.one("#latest").is_displayed())
    press(page, BUTTON.format("Go to the end"))
    page.wait(lambda: page.run(left, page.one("#log")) < 2)
    page.wait(lambda: not page.one("#latest").is_displayed())


def test_the_list_on_a_narrow_screen_is_opened_and_closed(page):
    page.resize(400, 700)
    side = page.one("#side")
    for close in (BUTTON.format("Close the list"), "#backdrop"):
        press(page, BUTTON.format("Show conversations"))
        page.wait(side.is_displayed)
        if close == "#backdrop":  # beside the list, which covers its middle
            page.run("document.querySelector('#backdrop').click()")
        else:
            press(page, close)
        page.wait(lambda: not side.is_displayed())


def test_the_menu_of_a_conversation(page, cli, tmp_path):
    number = talk(cli, "Dough", "Knead *it*")
    page.wait(lambda: page.text("#list .name") == "Dough")
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def choose(label):
        press(page, BUTTON.format("What to do with Dough"))
        (choice,) = [b for b in page.all("#menu button") if b.text == label]
        choice.click()

    for label, form, extension in (("Markdown", "markdown", "md"), ("JSON", "json", "json")):
        choose(f"Export as {label}")
        path = tmp_path / f"conversation-{number}.{extension}"
        page.wait(path.exists)
        assert path.read_text(encoding="utf-8") == cli.export(number, form)
    for label in ("Rename", "Delete"):
        choose(label)
        page.wait(lambda: page.one("#ask").get_attribute("open"))
        (cancel,) = [b for b in page.all("#ask button") if b.text == "Cancel"]
        cancel.click()
        page.wait(lambda: not page.one("#ask").get_attribute("open"))
    assert cli.conversation(number).title == "Dough"
    choose("Rename")
    page.type("Bread")
    page.driver.find_element(By.CSS_SELECTOR, "#ask .primary").click()
    page.wait(lambda: cli.conversation(number).title == "Bread")
