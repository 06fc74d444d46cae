// Browsers that the server tells to poll: the control group, and everybody while streams are switched off.
import { type Page } from '@playwright/test';
import { expect, test, type Hark } from './fixtures.ts';
import { NETWORK_ERRORS, expectBadge, expectLines, expectWholeTranscript, slowEngine, startSession } from './tones.ts';

/** A value of the server's metrics, summed over the series whose labels hold a text. */
async function metric(hark: Hark, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`${hark.url}/metrics`)).text();
  const lines = text.split('\n').filter(line => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** Checks that the page polls as something that is meant so, and not as a fallback. */
async function expectPollingWithoutAlarm(page: Page) {
  await expectBadge(page, 'polling');
  await expect(page.getByTestId('connection')).toContainText('Updates come every 3 s');
}

test.describe('in the control group', () => {
  test.use({ harkEnv: { ...slowEngine(0.5), HARK_CONTROL_PERCENT: '100' } });

  test('a page polls, opens no stream, and reports it for its arm', async ({ page, hark, allow }) => {
    allow(/favicon.ico/);
    await startSession(page, 8);
    await expectPollingWithoutAlarm(page);
    await expectWholeTranscript(page, 8);
    expect(await metric(hark, 'hark_streams_opened_total')).toBe(0);
    await page.goto('/healthz');
    const reported = (name: string, labels = '') => metric(hark, name, labels === '' ? 'arm="polling"' : `arm="polling",${labels}`);
    await expect.poll(() => reported('hark_client_mode_milliseconds_total', 'mode="polling"')).toBeGreaterThan(1_000);
    expect(await reported('hark_client_visits_total')).toBe(1);
    expect(await reported('hark_client_fallbacks_total')).toBe(0);
    expect(await reported('hark_client_connects_total')).toBe(0);
    expect(await reported('hark_client_requests_total', 'kind="poll"')).toBeGreaterThan(3);
    expect(await reported('hark_client_received_bytes_total')).toBeGreaterThan(200);
    expect(await metric(hark, 'hark_client_visits_total', 'arm="stream"')).toBe(0);
  });
});

test.describe('with the switch', () => {
  test.use({ harkEnv: slowEngine(0.5) });

  test('an open page stops streaming when streams are off and is live again when they are on', async ({ page, hark, allow }) => {
    test.setTimeout(120_000);
    allow(NETWORK_ERRORS);
    await startSession(page, 40);
    await expectBadge(page, 'live');
    await hark.kill();
    await hark.restart({ HARK_STREAMS: 'off' });
    await expectBadge(page, 'polling', 60_000);
    await expect(page.getByTestId('connection')).toContainText('Updates come every 3 s');
    await expectLines(page, 6);
    await hark.kill();
    await hark.restart({ HARK_STREAMS: 'on' });
    await expectBadge(page, 'live', 60_000);
    await expect(page.getByTestId('connection')).toContainText('Live');
    await expectWholeTranscript(page, 40);
  });
});
