"use strict";
(() => {
  const SECOND_MS = 1000;
  // How far the plane's clock is ahead of this one.
  let ahead = 0;
  const setClock = (asOf) => { ahead = Date.parse(asOf) - Date.now(); };

  // Times as the reader's own.
  const clockTime = (time) => {
    const at = new Date(time.dateTime);
    const isToday = at.toDateString() === new Date().toDateString();
    const style = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    time.title = time.textContent;
    time.textContent = at.toLocaleString([], style);
  };
  const showTimes = (part) => part.querySelectorAll("time:not([title])").forEach(clockTime);

  const two = (large, one, small, other) => small ? `${large} ${one} ${small} ${other}` : `${large} ${one}`;
  const left = (ms) => {
    const secs = Math.floor(ms / SECOND_MS);
    const [d, h, min] = [Math.floor(secs / 86400), Math.floor(secs / 3600) % 24, Math.floor(secs / 60) % 60];
    if (d) return two(d, "d", h, "h");
    if (h) return two(h, "h", min, "min");
    return min ? two(min, "min", secs % 60, "s") : `${secs} s`;
  };
  const countDown = () => document.querySelectorAll("[data-until]").forEach((part) => {
    const ms = Date.parse(part.dataset.until) - Date.now() - ahead;
    const text = ms > 0 ? left(ms) : "over";
    if (part.textContent !== text) part.textContent = text;
  });

  // The live list: what the stream tells takes the place of what was shown.
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const said = document.getElementById("said");
  const entries = () => new Map([...live.querySelectorAll("[data-entry]")].map((row) => [row.dataset.entry, row]));
  const who = (row) => row.cells[0].textContent;

  const replace = (html) => {
    const before = entries();
    const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const part = document.createElement("template");
    part.innerHTML = html;
    live.replaceChildren(part.content);
    const now = entries();
    const news = [];
    for (const [entry, row] of now) {
      if (before.has(entry)) continue;
      row.classList.add("arrived");
      news.push(`${who(row)} is let in from ${entry}`);
    }
    for (const [entry, row] of before) {
      if (!now.has(entry)) news.push(`${who(row)} is not let in from ${entry} any more`);
    }
    if (news.length) said.textContent = news.length > 3 ? `${news.length} changes` : `${news.join(". ")}.`;
    if (focused) [...live.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  };

  const follow = () => {
    const stream = new EventSource(live.dataset.stream);
    const tell = (text, isLive = false) => {
      pulse.textContent = text;
      pulse.classList.toggle("live", isLive);
    };
    stream.onopen = () => tell("Live: changes arrive by themselves.", true);
    stream.onerror = () => tell(stream.readyState === EventSource.CLOSED
      ? "Not live any more: load the page again."
      : "The connection was lost; trying again. What is shown may be old.");
    stream.addEventListener("list", ({ data }) => {
      const { as_of: asOf, html } = JSON.parse(data);
      setClock(asOf);
      replace(html);
      showTimes(live);
      countDown();
    });
    stream.addEventListener("withdrawn", () => {
      stream.close();
      live.replaceChildren();
      tell("This group was deleted.");
    });
  };

  setClock(document.body.dataset.now);
  showTimes(document);
  countDown();
  setInterval(countDown, SECOND_MS);
  if (live) follow();
})();
