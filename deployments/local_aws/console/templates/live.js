"use strict";
// Every part that names a source is asked for again while anyone looks, and replaced when it has changed. Where nothing
// changes, the pauses grow; a log is always asked for soon.

const PAUSE_MS = 2000;
const MOST_MS = 8000;
const tags = new WeakMap();

const SENTENCES = {
  403: "The local AWS was started anew, at another address: open that one.",
  404: "What is shown here is not there any more.",
};
const SILENT = "The local AWS does not answer: what is shown is what it said last.";

function isBeingRead(part) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function endOf(part) {
  return part.querySelector(".log");
}

function follow(part) {
  const log = "follow" in part.dataset && endOf(part);
  if (log) log.scrollTop = log.scrollHeight;
}

async function refresh(part) {
  const known = tags.get(part);
  // At the root, what does not ask for a page is S3's.
  const headers = { Accept: "text/html", ...(known && { "If-None-Match": known }) };
  const answer = await fetch(part.dataset.live, { headers });
  if (answer.status === 304 || answer.status === 503) return false;
  if (!answer.ok) throw new Error(SENTENCES[answer.status] || answer.statusText);
  const text = await answer.text();
  if (isBeingRead(part)) return true;
  const log = endOf(part);
  const wasAtEnd = !log || log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  const place = log ? log.scrollTop : 0;
  part.innerHTML = text;
  tags.set(part, answer.headers.get("ETag"));
  if (wasAtEnd) follow(part);
  else if (endOf(part)) endOf(part).scrollTop = place;
  return true;
}

async function watch(part, lost) {
  let pause = PAUSE_MS;
  for (;;) {
    await new Promise((done) => setTimeout(done, pause));
    if (document.hidden) continue;
    try {
      const isLive = (await refresh(part)) || "follow" in part.dataset;
      pause = isLive ? PAUSE_MS : Math.min(1.5 * pause, MOST_MS);
      lost.hidden = true;
    } catch (error) {
      lost.textContent = error instanceof TypeError ? SILENT : error.message;
      lost.hidden = false;
    }
  }
}

const parts = [...document.querySelectorAll("[data-live]")].filter((part) => part.dataset.live);
parts.forEach(follow);
parts.forEach((part) => watch(part, document.querySelector(".lost")));
