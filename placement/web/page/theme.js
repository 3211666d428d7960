// Dark or light, as the system says or as was chosen here. Runs before the first paint, so that nothing flashes.
(() => {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const read = () => { try { return localStorage.getItem('kdn-theme') || 'system'; } catch { return 'system'; } };
  let chosen = read();
  const apply = () => {
    document.documentElement.dataset.theme = chosen === 'system' ? (system.matches ? 'dark' : 'light') : chosen;
    dispatchEvent(new Event('themechange'));
  };
  system.addEventListener('change', apply);
  window.kdnTheme = {
    get chosen() { return chosen; },
    next() {
      const dark = document.documentElement.dataset.theme === 'dark';
      // The other one; and back to the system's where that is the same.
      chosen = dark ? 'light' : 'dark';
      if ((chosen === 'dark') === system.matches) chosen = 'system';
      try { localStorage.setItem('kdn-theme', chosen); } catch { /* not kept */ }
      apply();
    },
  };
  apply();
})();
