// Keys: g c, g s … go to a page; / puts the cursor into the search.
(() => {
  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable=true]")) return;
    if (going) {
      going = false;
      document.querySelector(`.navigation a[data-key="${CSS.escape(event.key)}"]`)?.click();
    } else if (event.key === "g") {
      going = true;
      setTimeout(() => (going = false), 1500);
    } else if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    }
  });
})();

// The Tab key leaves the editor of SQL, as it leaves everything else, instead of indenting.
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && event.target.closest?.(".sql-editor")) event.stopPropagation();
}, true);

// A transcript: whoever looks at its end stays there while it grows; others are told that more came.
(() => {
  const NEAR = 140;
  let pinned = false, seen = 0, started = null, due = false;
  const end = () => document.documentElement.scrollHeight - window.innerHeight - window.scrollY < NEAR;
  const toEnd = () => window.scrollTo({ top: document.documentElement.scrollHeight });
  const conversation = () => document.querySelector(".conversation");
  const button = () => document.querySelector("[data-latest]");
  const offer = () => {
    const link = button(), log = conversation();
    if (!link || !log) return;
    const live = log.dataset.live === "yes", fresh = log.childElementCount - seen;
    if (live && pinned) seen = log.childElementCount;
    link.hidden = live && (pinned || document.documentElement.scrollHeight <= window.innerHeight);
    const text = live && !pinned && fresh > 0 ? `${fresh} new` : "";
    const count = link.querySelector("b");
    if (count.textContent !== text) count.textContent = text;
  };
  const changed = () => {
    due = false;
    const log = conversation();
    if (!log) return;
    if (started !== log) {
      started = log;
      seen = log.childElementCount;
      pinned = log.dataset.start === "end" || end();
      if (location.hash) document.querySelector(location.hash.replace(/[^#\w-]/g, ""))?.scrollIntoView();
      else if (log.dataset.start === "end") toEnd();
    } else if (pinned && log.dataset.live === "yes") {
      toEnd();
    }
    offer();
  };
  new MutationObserver(() => {
    if (!due) requestAnimationFrame(changed);
    due = true;
  }).observe(document, { childList: true, subtree: true });
  addEventListener("scroll", () => { pinned = end(); offer(); }, { passive: true });
  const latest = (event) => {
    if (conversation()?.dataset.live !== "yes") return;
    event.preventDefault();
    pinned = true;
    toEnd();
    offer();
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-latest]")) latest(event);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    if (event.key === "l") {
      button()?.click();
    } else if (event.key === "j" || event.key === "k") {
      const items = [...document.querySelectorAll(".conversation .item")];
      const here = items.indexOf(document.activeElement.closest(".item"));
      const next = items[event.key === "j" ? here + 1 : Math.max(0, here - 1)];
      const target = next?.querySelector("summary") ?? next;
      if (target) {
        if (target === next) target.tabIndex = -1;
        target.focus({ preventScroll: true });
        next.scrollIntoView({ block: "nearest" });
      }
    }
  });
})();

// What a tooltip explains to a pointer it explains to the keyboard too.
for (const [moved, hovered] of [["focusin", "mouseenter"], ["focusout", "mouseleave"]]) {
  document.addEventListener(moved, (event) => {
    event.target.closest?.(".freshness")?.dispatchEvent(new MouseEvent(hovered));
  });
}
