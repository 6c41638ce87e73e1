// Before the first paint: the theme that was chosen here, or else the system's.
try {
  const theme = localStorage.getItem("bitinfer.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // storage is switched off: the system's theme
}
