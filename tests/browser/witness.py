"""What a browser complains of while a test runs: nothing of it may go unsaid.

A complaint is an error or a warning on the console (there Chromium also says what the Content Security
Policy forbade, and which answers were 400 and above), an exception that nobody caught, a request that
failed. A test announces the complaints that it provokes.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from playwright.sync_api import BrowserContext, CDPSession, ConsoleMessage, Request, WebError

SERIOUS = ("error", "warning", "assert")
"""Of what a console takes."""


@define(eq=False, slots=False)  # Playwright hangs its own attributes on whose method it calls
class Witness:
    complaints: list[str] = field(factory=list)
    announced: dict[str, bool] = field(factory=dict)
    """Regular expressions, and whether something matched them."""

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._heard)
        context.on("weberror", self._thrown)
        context.on("requestfailed", self._failed)

    def watch_shared_workers(self, devtools: CDPSession) -> None:
        """Of the whole browser. Playwright does not know them: what they say comes in parcels of DevTools."""

        def order(session: str, *methods: str) -> None:
            for number, method in enumerate(methods):
                message = json.dumps({"id": number, "method": method})
                devtools.send("Target.sendMessageToTarget", {"sessionId": session, "message": message})

        def listen(event: Mapping[str, Any]) -> None:
            target = event["targetInfo"]
            if target["type"] == "shared_worker":
                which = {"targetId": target["targetId"], "flatten": False}
                session = devtools.send("Target.attachToTarget", which)["sessionId"]
                # What was said before somebody listened is told again.
                order(session, "Runtime.enable", "Log.enable")

        def hear(event: Mapping[str, Any]) -> None:
            # A worker that ends with its last page, and is wanted by the next, waits for whoever listens.
            if json.loads(event["message"]).get("method") == "Inspector.targetReloadedAfterCrash":
                order(event["sessionId"], "Runtime.enable", "Log.enable", "Runtime.runIfWaitingForDebugger")
            self._worker_said(event)

        devtools.on("Target.targetCreated", listen)
        devtools.on("Target.receivedMessageFromTarget", hear)
        devtools.send("Target.setDiscoverTargets", {"discover": True})

    def announce(self, *patterns: str) -> None:
        """What matches one of `patterns` is meant to be; that none comes of it is a failure too."""
        self.announced.update(dict.fromkeys(patterns, False))

    def tolerate(self, *patterns: str) -> None:
        """What matches one of `patterns` may come, or not: it is a matter of moments."""
        self.announced.update(dict.fromkeys(patterns, True))

    def testify(self) -> None:
        """At the end of a test."""
        complaints = [f"- {complaint}" for complaint in self.complaints]
        silent = [f"- announced, but never heard: {it}" for it, came in self.announced.items() if not came]
        assert not complaints + silent, "\n".join(["the browser complained:", *complaints, *silent])

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in SERIOUS:
            where = message.location
            self._note(f"{message.type}: {message.text} ({where['url']}:{where['lineNumber'] + 1})")

    def _thrown(self, error: WebError) -> None:
        self._note(f"not caught: {error.error}")

    def _failed(self, request: Request) -> None:
        # A page gives up what it does not want any more: its stream; all that is on its way when it is left.
        if request.failure != "net::ERR_ABORTED":
            self._note(f"failed: {request.method} {request.url}: {request.failure}")

    def _worker_said(self, event: Mapping[str, Any]) -> None:
        message = json.loads(event["message"])
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                self._note(
                    f"not caught in a worker: {details.get('exception', {}).get('description', details)}"
                )
            case "Runtime.consoleAPICalled" if told["type"] in SERIOUS:
                words = [str(it.get("value", it.get("description"))) for it in told["args"]]
                self._note(f"{told['type']} in a worker: {' '.join(words)}")
            case "Log.entryAdded" if (entry := told["entry"])["level"] in SERIOUS:
                self._note(f"{entry['level']} in a worker: {entry['text']} ({entry.get('url')})")

    def _note(self, complaint: str) -> None:
        meant = [pattern for pattern in self.announced if re.search(pattern, complaint)]
        self.announced.update(dict.fromkeys(meant, True))
        if not meant:
            self.complaints.append(complaint)
