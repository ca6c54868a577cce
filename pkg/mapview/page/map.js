'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const byId = (id) => document.getElementById(id);
  const grid = byId('grid'), head = byId('head'), rows = byId('rows'), verdict = byId('verdict');
  const search = byId('search'), filter = byId('filter'), count = byId('count'), buttons = byId('states');
  const words = Object.fromEntries(data.states.map((s) => [s.state, s.words]));
  const cellSize = 22, beyond = 10;
  // A group's row follows the nodes it is about; groups without anything to tell them apart have none.
  const grouped = data.nodes.some((node) => node.group);

  let columns = [];  // the numbers of the DaemonSets that are shown
  let items = [];    // the rows that are shown: a node, or the title of a group
  let active = null; // the cell that the keyboard is at: {row, column}, numbers in items and columns
  let drawn = [0, 0];

  const element = (name, attributes, ...children) => {
    const e = document.createElement(name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    e.append(...children);
    return e;
  };
  const symbol = (state) => {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    svg.setAttribute('class', state);
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', '#' + state);
    svg.append(use);
    return svg;
  };
  const symbols = Object.fromEntries(data.states.map((s) => [s.state, symbol(s.state)]));
  const verdictOf = (node, column) => data.verdicts[node.cells[column]];
  const sentence = (v) => {
    const reason = data.reasons[v.reason];
    return reason === words[v.state] ? reason : words[v.state] + ', ' + reason;
  };

  // choose works out what is shown, and draws it.
  function choose() {
    const named = filter.value.trim().toLowerCase(), sought = search.value.trim().toLowerCase();
    const pressed = new Set([...buttons.querySelectorAll('[aria-pressed="true"]')].map((b) => b.dataset.state));
    columns = data.names.map((_, n) => n).filter((n) => data.names[n].toLowerCase().includes(named));
    const found = data.verdicts.map((v) => sought !== '' && (sentence(v) + ' ' + v.message).toLowerCase().includes(sought));
    const hasCell = (node, test) => columns.some((n) => test(node.cells[n]));
    const nodes = data.nodes.filter((node) =>
      (node.name.toLowerCase().includes(sought) || (node.group || '').toLowerCase().includes(sought) || hasCell(node, (v) => found[v])) &&
      (pressed.size === 0 || hasCell(node, (v) => pressed.has(data.verdicts[v].state))));
    items = [];
    let group = null;
    for (const node of nodes) {
      if (grouped && (group === null || group.title !== (node.group || ''))) {
        group = {title: node.group || '', nodes: 0};
        items.push(group);
      }
      if (group) group.nodes++;
      items.push(node);
    }
    count.textContent = nodes.length + ' of ' + data.nodes.length + ' nodes, ' + columns.length + ' of ' + data.names.length + ' DaemonSets';
    grid.setAttribute('aria-rowcount', items.length + 1);
    grid.setAttribute('aria-colcount', columns.length + 1);
    rows.style.height = items.length * cellSize + 'px';
    rows.style.width = 'calc(var(--name) + ' + columns.length * cellSize + 'px)';
    grid.scrollTop = 0;
    drawHead();
    draw(true);
    go(null);
  }

  function drawHead() {
    head.replaceChildren(element('div', {role: 'columnheader', id: 'corner', 'aria-colindex': 1}, 'Node'));
    columns.forEach((n, at) => {
      const ds = data.daemonSets[n], text = data.names[n] + '  ' + ds.ready + '/' + ds.desired;
      head.append(element('div', {role: 'columnheader', 'aria-colindex': at + 2, title: text}, element('span', {}, text)));
    });
  }

  // draw keeps the rows in the document that are in view, and some beyond.
  function draw(anew) {
    const first = Math.max(0, Math.floor(grid.scrollTop / cellSize) - beyond);
    const last = Math.min(items.length, Math.ceil((grid.scrollTop + grid.clientHeight) / cellSize) + beyond);
    if (!anew && first === drawn[0] && last === drawn[1]) return;
    const kept = new Map(anew ? [] : [...rows.children].map((row) => [Number(row.dataset.row), row]));
    for (const [n, row] of kept) if (n < first || n >= last) row.remove();
    if (anew) rows.replaceChildren();
    for (let n = first; n < last; n++) if (!kept.has(n) || !kept.get(n).isConnected) rows.append(drawRow(n));
    drawn = [first, last];
    mark();
  }

  function drawRow(n) {
    const item = items[n];
    const row = element('div', {role: 'row', 'aria-rowindex': n + 2, 'data-row': n});
    row.style.top = n * cellSize + 'px';
    if (!item.cells) {
      row.className = 'group';
      const title = item.title || 'without the label ' + data.groupBy;
      row.append(element('div', {role: 'rowheader', 'aria-colindex': 1, 'aria-colspan': columns.length + 1},
        title + ', ' + item.nodes + (item.nodes === 1 ? ' node' : ' nodes')));
      return row;
    }
    row.append(element('div', {role: 'rowheader', 'aria-colindex': 1, title: item.name}, item.name));
    columns.forEach((column, at) => {
      const v = verdictOf(item, column);
      row.append(element('div', {
        role: 'gridcell', id: 'cell-' + n + '-' + at, 'aria-colindex': at + 2,
        'aria-label': data.names[column] + ' on ' + item.name + ': ' + sentence(v) + '. ' + v.message,
      }, symbols[v.state].cloneNode(true)));
    });
    return row;
  }

  // tell shows the verdict of a cell.
  function tell(row, column) {
    const node = items[row], n = columns[column], ds = data.daemonSets[n], v = verdictOf(node, n);
    verdict.replaceChildren(
      element('h2', {}, symbols[v.state].cloneNode(true), data.names[n] + ' on ' + node.name + ': ' + sentence(v)),
      element('p', {}, v.message),
      element('p', {}, element('code', {}, 'kubectl everynode explain ds/' + ds.name + ' -n ' + ds.namespace + ' --node ' + node.name + data.flags)));
  }

  function mark() {
    for (const cell of rows.querySelectorAll('.active')) cell.classList.remove('active');
    const cell = active && byId('cell-' + active.row + '-' + active.column);
    if (cell) {
      cell.classList.add('active');
      grid.setAttribute('aria-activedescendant', cell.id);
    } else {
      grid.removeAttribute('aria-activedescendant');
    }
  }

  // go moves to a cell and has it in view.
  function go(to) {
    active = to;
    if (to) {
      const top = to.row * cellSize, space = grid.clientHeight - head.offsetHeight;
      if (top < grid.scrollTop) grid.scrollTop = top - cellSize;
      else if (top + cellSize > grid.scrollTop + space) grid.scrollTop = top + cellSize - space;
      const left = to.column * cellSize, room = grid.clientWidth - head.firstChild.offsetWidth;
      if (left < grid.scrollLeft) grid.scrollLeft = left;
      else if (left + cellSize > grid.scrollLeft + room) grid.scrollLeft = left + cellSize - room;
      draw(false);
      tell(to.row, to.column);
    } else {
      verdict.replaceChildren(element('p', {}, items.length === 0 || columns.length === 0 ? 'Nothing matches.' :
        'Point at a cell, or go there with the arrow keys, to read its verdict.'));
    }
    mark();
  }

  // step returns the number of the nearest row of a node, from row n on in a direction.
  function step(n, direction) {
    let at = Math.min(Math.max(n, 0), items.length - 1);
    while (items[at] && !items[at].cells) at += direction;
    if (items[at]) return at;
    return items.findIndex((item) => item.cells);
  }

  function cellAt(event) {
    const cell = event.target.closest('[role="gridcell"]');
    if (!cell) return null;
    const [, row, column] = cell.id.split('-').map(Number);
    return {row, column};
  }

  const pages = () => Math.max(1, Math.floor((grid.clientHeight - head.offsetHeight) / cellSize) - 1);
  const moves = {
    ArrowDown: (at) => ({row: step(at.row + 1, 1), column: at.column}),
    ArrowUp: (at) => ({row: step(at.row - 1, -1), column: at.column}),
    ArrowRight: (at) => ({row: at.row, column: Math.min(at.column + 1, columns.length - 1)}),
    ArrowLeft: (at) => ({row: at.row, column: Math.max(at.column - 1, 0)}),
    PageDown: (at) => ({row: step(at.row + pages(), -1), column: at.column}),
    PageUp: (at) => ({row: step(at.row - pages(), 1), column: at.column}),
    Home: (at, far) => ({row: far ? step(0, 1) : at.row, column: 0}),
    End: (at, far) => ({row: far ? step(items.length - 1, -1) : at.row, column: columns.length - 1}),
  };

  grid.addEventListener('keydown', (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.metaKey || items.length === 0 || columns.length === 0) return;
    event.preventDefault();
    go(active ? move(active, event.ctrlKey) : {row: step(0, 1), column: 0});
  });
  grid.addEventListener('focus', () => {
    if (!active && items.length > 0 && columns.length > 0) go({row: step(drawn[0] === 0 ? 0 : drawn[0] + beyond, 1), column: 0});
  });
  grid.addEventListener('mousedown', (event) => {
    const at = cellAt(event);
    if (at) go(at);
  });
  grid.addEventListener('mouseover', (event) => {
    const at = cellAt(event);
    if (at) tell(at.row, at.column);
  });
  grid.addEventListener('mouseleave', () => { if (active) tell(active.row, active.column); });
  grid.addEventListener('scroll', () => draw(false), {passive: true});
  window.addEventListener('resize', () => draw(false));
  search.addEventListener('input', choose);
  filter.addEventListener('input', choose);
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  buttons.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true');
    choose();
  });
  // Browsers have a use for the key, too, and would type it into a field that has the focus at once.
  const isSearch = (event) => event.key === '/' && !event.target.closest('input');
  document.addEventListener('keydown', (event) => { if (isSearch(event)) event.preventDefault(); });
  document.addEventListener('keyup', (event) => { if (isSearch(event)) search.focus(); });

  byId('names').append(...data.names.map((name) => element('option', {value: name})));
  choose();
})();
