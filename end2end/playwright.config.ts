// Uses the system's Chromium, because Playwright's own may not be downloadable, and two workers. Every test starts its own
// server through the `hark` fixture. All output goes to artifacts/.
import { defineConfig } from '@playwright/test';

export default defineConfig({
  testDir: '.',
  testMatch: '*.spec.ts',
  // Not part of the tests: `make random` runs it.
  testIgnore: process.env.HARK_SEEDS ? [] : 'random.spec.ts',
  outputDir: 'artifacts/results',
  reporter: [['list'], ['html', { outputFolder: 'artifacts/report', open: 'never' }]],
  workers: 2,
  fullyParallel: true,
  forbidOnly: !!process.env.CI,
  timeout: 240_000,
  expect: { timeout: 20_000 },
  use: {
    trace: 'retain-on-failure',
    // It would answer some requests out of the tests' sight. installed.spec.ts has it.
    serviceWorkers: 'block',
    // Without a graphics card, an endless animation uses half a core.
    contextOptions: { reducedMotion: 'reduce' },
    launchOptions: {
      executablePath: process.env.HARK_CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
});
