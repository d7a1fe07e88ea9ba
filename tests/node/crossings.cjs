// The addon, with a count of the calls that go down: where TOWLINE_NODE_BINARY names this file, TOWLINE_NODE_COUNTED
// names the addon.

const addon = require(process.env.TOWLINE_NODE_COUNTED);

const counts = (globalThis.crossings = {});

function counted(name, method) {
  return (...args) => {
    counts[name] = (counts[name] ?? 0) + 1;
    return method(...args);
  };
}

const wrapped = Object.entries(addon).map(([name, method]) => [name, counted(name, method)]);
module.exports = Object.fromEntries(wrapped);
module.exports.makePort = (...args) =>
  Object.fromEntries(Object.entries(addon.makePort(...args)).map(([name, method]) => [name, counted(name, method)]));
