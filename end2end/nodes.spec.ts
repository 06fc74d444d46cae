// What a browser notices of nodes that are restarted one after another: a moment of 'Connecting', and nothing else.
import { expect, test } from './fixtures.ts';
import { startNodes } from './nodes.ts';
import { record } from './sessions.ts';
import { badge, expectWhole, lines, slow, start } from './tones.ts';

test('every node is restarted while a page watches', async ({ page, allow }, info) => {
  // A node on its way down refuses connections, which nginx passes on to the other, or tells the browser of.
  allow(/Failed to load resource|EventSource's response|ERR_|net::/);
  const nodes = await startNodes(slow(0.8));
  try {
    await start(page, 40, nodes.url);
    await badge(page, 'live');
    const recording = record(page);
    for (const node of [...nodes.webs, ...nodes.workers]) {
      const seen = await page.getByTestId('segment').count();
      expect(await node.stop(), 'it ends within 10 seconds').toBe(true);
      await node.start();
      await lines(page, seen + 3);
      await badge(page, 'live');
    }
    await expectWhole(page, 40);
    const samples = await recording;
    const told = new Set(samples.map(sample => sample.badge).filter(mode => mode !== 'off'));
    expect([...told].sort().join(), 'live, and connecting in between').toMatch(/^(connecting,)?live$/);
    expect(samples.filter(sample => sample.state === 'failed')).toEqual([]);
  } finally {
    if (info.errors.length > 0) await info.attach('nodes.log', { body: nodes.log(), contentType: 'text/plain' });
    await nodes.stop();
  }
});
