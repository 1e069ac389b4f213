"use strict";
(() => {
  const SECOND = 1000;

  // Times as the reader's own.
  const clockTime = (time) => {
    const at = new Date(time.dateTime);
    const isToday = at.toDateString() === new Date().toDateString();
    const style = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    time.title = time.textContent;
    time.textContent = at.toLocaleString([], style);
  };
  const showTimes = (part) => part.querySelectorAll("time:not([title])").forEach(clockTime);

  showTimes(document);
})();
