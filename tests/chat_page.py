"""The chat page as a user has it, in Chromium."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and "CI" not in os.environ, reason="needs chromium and chromedriver"
)


class Page:
    """What a user does, and sees."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def wait(self, condition):
        return WebDriverWait(self.driver, 20, 0.02).until(lambda _: condition())

    def open(self, fragment=""):
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{fragment}")
        self.wait(lambda: self.one("#message").get_attribute("placeholder") == "Message tales-14m")

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText", selector)

    def type(self, *keys):
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, modifier, key):
        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def active(self, name):
        """A property of the element that has the focus."""
        return self.run("return document.activeElement[arguments[0]]", name)

    def click(self, label, place="", nth=-1):
        self.run("arguments[0].click()", self.all(f"{place} [aria-label='{label}']")[nth])

    def idle(self):
        self.wait(lambda: not self.run("return document.body.classList.contains('busy')"))

    def ask(self, text):
        self.one("#message").send_keys(text, Keys.ENTER)
        self.wait(lambda: self.run("return document.querySelector('#message').value") == "")
        self.idle()

    def number(self):
        """The number that the history gave the conversation on show."""
        return self.wait(lambda: self.run("return Number(location.hash.slice(1))"))

    def turns(self):
        """The texts of all messages."""
        return self.run(
            "return [...document.querySelectorAll('.bubble, .prose')].map((e) => e.innerText)"
        )

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def chromium():
    """A browser without a window, in which nothing moves while it is clicked."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument("--force-prefers-reduced-motion")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver
