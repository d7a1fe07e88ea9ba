// For `import`: the same classes, whichever way the package was loaded.

export { VirtualClock } from "./testing.js";
