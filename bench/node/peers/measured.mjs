/** Runs `work` to warm up and once more, and prints the line that bench_towline reads. */
export async function measured(count, work) {
  await work(Math.min(count, 5_000));
  const cpu = process.cpuUsage();
  const started = performance.now();
  await work(count);
  const seconds = (performance.now() - started) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  console.log(JSON.stringify({ per_second: count / seconds, cpu_us: (user + system) / count }));
}
