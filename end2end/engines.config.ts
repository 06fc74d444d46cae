// The suite of browsers other than Chromium: engines.test.ts, once in Firefox and once in WebKit. `scripts/test engines` runs it.
import { defineConfig } from '@playwright/test';

export default defineConfig({
  testDir: '.',
  testMatch: 'engines.test.ts',
  outputDir: 'artifacts/engines',
  reporter: [['list']],
  workers: 2,
  fullyParallel: true,
  forbidOnly: !!process.env.CI,
  timeout: 120_000,
  // A driver that hangs must not hold everything up.
  globalTimeout: 900_000,
  expect: { timeout: 45_000 },
  projects: [{ name: 'firefox' }, { name: 'webkit' }],
});
