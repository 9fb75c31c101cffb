"use strict";
// The page is complete without this. It renews what is shown every five seconds, filters while one types, and knows keys.
(() => {
  const form = document.querySelector("form");
  const text = form.elements.q;
  let newest = 0;

  const address = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
    return query.size > 0 ? `?${query}` : "./";
  };

  // Somebody copies a command: what they marked must not go away under the pointer.
  const selecting = () => {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && document.getElementById("live").contains(selection.anchorNode);
  };

  const keepOpen = (live, next) => {
    for (const old of live.querySelectorAll("details[id]")) {
      const now = next.querySelector(`#${CSS.escape(old.id)}`);
      if (now !== null) now.open = old.open;
    }
  };

  const renew = async (chosen) => {
    const turn = ++newest;
    let next;
    try {
      const answer = await fetch(address(), { cache: "no-store" });
      next = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      return; // The agent is restarted, or the port-forward broke: the time on the page tells how old it is.
    }
    const live = document.getElementById("live");
    const fresh = next.getElementById("live");
    if (turn !== newest || fresh === null || (!chosen && selecting())) return;
    if (!chosen) keepOpen(live, fresh);
    const focused = live.contains(document.activeElement) ? document.activeElement.id || document.activeElement.parentElement?.id : "";
    const imported = document.importNode(fresh, true);
    live.replaceWith(imported);
    document.getElementById("summary").replaceWith(document.importNode(next.getElementById("summary"), true));
    document.title = next.title;
    const again = focused && document.getElementById(focused);
    if (again) (again.querySelector("summary") ?? again).focus({ preventScroll: true });
    if (document.activeElement !== form.elements.server) {
      const server = form.elements.server.value;
      form.elements.server.replaceChildren(...next.querySelector("select[name=server]").cloneNode(true).options);
      form.elements.server.value = server;
    }
  };

  const choose = () => {
    history.replaceState(null, "", address());
    renew(true);
  };

  let waiting;
  form.addEventListener("submit", (event) => { event.preventDefault(); choose(); });
  form.addEventListener("change", choose);
  text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 150); });
  document.addEventListener("selectionchange", () => {
    const paused = document.getElementById("paused");
    if (paused) paused.hidden = !selecting();
  });
  setInterval(() => { if (!document.hidden) renew(false); }, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) renew(false); });

  const step = (by) => {
    const heads = [...document.querySelectorAll(".incident h2")];
    const at = heads.indexOf(document.activeElement);
    const next = heads[at < 0 ? (by > 0 ? 0 : heads.length - 1) : at + by];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      form.elements.q.value = form.elements.state.value = form.elements.server.value = "";
      document.activeElement.blur();
      choose();
    } else if (event.target.closest("input, select, textarea") === null) {
      if (event.key === "/") { event.preventDefault(); text.focus(); text.select(); }
      if (event.key === "j") step(1);
      if (event.key === "k") step(-1);
    }
  });
  document.documentElement.classList.add("js");
  document.getElementById("keys").hidden = false;
})();
