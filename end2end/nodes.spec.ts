// Nodes are restarted one after another: a browser shows 'Connecting' for a moment, and loses nothing.
import { expect, test } from './fixtures.ts';
import { startNodes } from './nodes.ts';
import { record } from './sessions.ts';
import { expectBadge, expectWholeTranscript, expectLines, slowEngine, startSession } from './tones.ts';

test('a page loses nothing while every node is restarted', async ({ page, allow }, info) => {
  // A node that shuts down refuses connections. nginx then uses the other node, or returns an error to the browser.
  allow(/Failed to load resource|EventSource's response|ERR_|net::/);
  const nodes = await startNodes(slowEngine(0.8));
  try {
    await startSession(page, 40, nodes.url);
    await expectBadge(page, 'live');
    const recording = record(page);
    for (const node of [...nodes.webs, ...nodes.workers]) {
      const seen = await page.getByTestId('segment').count();
      expect(await node.stop(), 'it ends within 10 seconds').toBe(true);
      await node.start();
      await expectLines(page, seen + 3);
      await expectBadge(page, 'live');
    }
    await expectWholeTranscript(page, 40);
    const samples = await recording;
    const modes = new Set(samples.map(sample => sample.badge).filter(mode => mode !== 'off'));
    expect([...modes].sort().join(), 'live, and connecting in between').toMatch(/^(connecting,)?live$/);
    expect(samples.filter(sample => sample.state === 'failed')).toEqual([]);
  } finally {
    if (info.errors.length > 0) await info.attach('nodes.log', { body: nodes.log(), contentType: 'text/plain' });
    await nodes.stop();
  }
});
