// Loaded before anything is drawn, so that a dark page never flashes white.
"use strict";
{
  let chosen = null;
  try { chosen = localStorage.getItem("ingest-theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
