// The same from CommonJS.
import towline = require("towline");
import testing = require("towline/testing");

export async function main(): Promise<number> {
  const engine: towline.Engine = await towline.Engine.open("memory:", { clock: new testing.VirtualClock() });
  await engine.publish("a", 1);
  return engine.close();
}
