// What the pages do beside htmx; each of them reads and acts without this file, too.
(() => {
  "use strict";
  const say = (text, state) => {
    const place = document.getElementById("live-state");
    if (place && place.dataset.state !== state) {
      place.dataset.state = state;
      place.textContent = text;
    }
  };
  document.addEventListener("htmx:sse:after:connection", (event) => {
    const ok = event.detail.connection.status === 200;
    say(ok ? "live" : "not live", ok ? "live" : "lost");
  });
  document.addEventListener("htmx:sse:error", () => say("reconnecting", "lost"));
  document.addEventListener("htmx:sse:close", () => say("not live", "lost"));
  document.addEventListener("away", () => say("no database", "lost"));
  document.addEventListener("changed", () => say("live", "live"));

  // A page that cannot be had, such as an error's, replaces nothing: what is shown stays.
  document.addEventListener("htmx:before:swap", (event) => {
    const response = event.detail.ctx && event.detail.ctx.response;
    if (response && response.status >= 400) event.preventDefault();
  });

  // What somebody is about to do is not pulled away by news.
  document.addEventListener("htmx:before:request", (event) => {
    const live = document.getElementById("live");
    if (live && event.target === live && live.querySelector(".deed[open]")) event.preventDefault();
  });

  const boxes = () => [...document.querySelectorAll('#many input[name="id"]')];
  const count = () => {
    const chosen = boxes().filter((box) => box.checked).length;
    const place = document.getElementById("chosen");
    if (place) place.textContent = chosen ? `With the ${chosen} chosen:` : "With the chosen:";
    const all = document.getElementById("all");
    if (all) {
      all.hidden = false;
      all.checked = chosen > 0 && chosen === boxes().length;
      all.indeterminate = chosen > 0 && chosen < boxes().length;
    }
  };
  document.addEventListener("change", (event) => {
    if (event.target.id === "all") boxes().forEach((box) => { box.checked = event.target.checked; });
    if (event.target.closest("#many")) count();
  });
  document.addEventListener("htmx:after:swap", count);
  document.addEventListener("DOMContentLoaded", count);

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = event.target.closest(".deed[open]") || document.querySelector(".deed[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
})();
