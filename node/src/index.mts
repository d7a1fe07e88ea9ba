// For `import`: the same classes, whichever way the package was loaded.

export * from "./index.js";
