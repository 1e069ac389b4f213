"use strict";
(() => {
  const SOON_MS = 1000, LATER_MS = 30000, SOON_FOR_MS = 120000;
  const form = document.querySelector("form");
  const told = document.getElementById("told");
  const closing = document.getElementById("closing");
  const path = location.pathname;
  const accept = { accept: "application/json" };
  let closesAt = 0, ahead = 0, nextAt = 0, soonUntil = 0, timer = 0, said = "";

  const now = () => Date.now() + ahead;
  const isSeen = () => document.visibilityState === "visible" && !document.prerendering;

  const say = (lines) => {
    if (said === lines.join("\n")) return;
    said = lines.join("\n");
    told.replaceChildren(...lines.map((line) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = line;
      return paragraph;
    }));
  };

  const clockTime = (ms) => {
    const isToday = new Date(ms).toDateString() === new Date(now()).toDateString();
    const style = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    return new Date(ms).toLocaleString([], style);
  };

  const left = (ms) => {
    const secs = Math.max(0, Math.floor(ms / 1000));
    const [h, min, s] = [Math.floor(secs / 3600), Math.floor(secs / 60) % 60, secs % 60];
    return h ? `${h} h ${min} min` : min ? `${min} min ${s} s` : `${s} s`;
  };

  const countDown = () => {
    if (!closesAt) return;
    if (closesAt <= now()) {
      closesAt = 0;
      closing.textContent = "";
      say(["Your address has expired, and is closed again. Press the button to open it anew."]);
      return;
    }
    closing.textContent = `It closes in ${left(closesAt - now())} unless it is reported again.`;
  };

  const show = ({ data, meta }) => {
    ahead = Date.parse(meta.timestamp) - Date.now();
    if (!data.expires_at) {
      if (closesAt) say(["This address is not on file any more. Press the button to open it."]);
      closesAt = 0;
      closing.textContent = "";
      return false;
    }
    closesAt = Date.parse(data.expires_at);
    const { open, of, held = 0, failed = 0 } = data.confirmation;
    const silent = Math.max(0, of - open - held - failed);
    const until = clockTime(closesAt);
    const lines = of === 0
      ? [`Your address is on file until ${until}. No host that should open to it has reported in yet.`]
      : [`Open on ${open} of ${of}, until ${until}.`];
    if (held) lines.push(`On ${held} the host's own policy holds part of the list back, maybe your address. Ask whoever runs it.`);
    if (failed) lines.push(`On ${failed} the list could not be put in force. The host goes on trying; tell whoever runs it.`);
    if (silent) lines.push(`${silent} of them ${silent === 1 ? "has" : "have"} not confirmed yet.`);
    if (data.ipv4 && data.ipv6) lines.push(`Reported: ${data.ipv4} and ${data.ipv6}.`);
    say(lines);
    countDown();
    return silent + failed > 0;
  };

  const askAgain = (isOpenEnded) => {
    clearTimeout(timer);
    const isSoon = isOpenEnded && Date.now() < soonUntil;
    timer = setTimeout(ask, isSoon ? SOON_MS : LATER_MS);
  };

  const ask = async () => {
    clearTimeout(timer);
    if (!isSeen()) return;
    try {
      const answer = await fetch(`${path}/state`, { headers: accept, cache: "no-store" });
      if (answer.ok) return askAgain(show(await answer.json()));
      if (answer.status === 404) {
        closesAt = 0;
        closing.textContent = "";
        return say(["This bookmark is not in force any more. Ask whoever gave it to you."]);
      }
    } catch { /* what is shown stays true until its time */ }
    askAgain(false);
  };

  const send = (url, fields, credentials) => fetch(url, {
    method: "POST", headers: accept, credentials, body: new URLSearchParams({ wait: "0", ...fields }),
  });

  const report = async (device) => {
    nextAt = Infinity;
    try {
      const answer = await send(path, device ? { device } : {}, "same-origin");
      if (answer.status === 204) return;
      const body = await answer.json();
      if (!answer.ok) {
        const rest = Number(answer.headers.get("retry-after"));
        if (rest) nextAt = Date.now() + rest * 1000;
        return say([`Nothing was opened: ${body.detail || body.title}.`]);
      }
      soonUntil = Date.now() + SOON_FOR_MS;
      nextAt = Date.now() + body.data.next * 1000;
      show(body);
      if (form.dataset.other) {
        // The other family may be out of reach: then there is nothing to report.
        await send(form.dataset.other + path, { visit: body.data.visit }, "omit").catch(() => {});
      }
      ask();
    } catch {
      say(["The control plane cannot be reached. Nothing was reported."]);
    }
  };

  form.addEventListener("submit", (event) => {
    const chosen = new FormData(form, event.submitter).get("device");
    // What a device is to remember changes the page: then the browser itself sends the form.
    if (chosen) return;
    event.preventDefault();
    report();
  });

  const look = () => {
    if (!isSeen()) return;
    if ("byItself" in form.dataset && nextAt <= Date.now()) report("itself");
    else if (soonUntil) ask();
  };

  if ("known" in form.dataset) soonUntil = Date.now() + SOON_FOR_MS;
  document.addEventListener("visibilitychange", look);
  document.addEventListener("prerenderingchange", look);
  setInterval(countDown, 1000);
  look();
})();
