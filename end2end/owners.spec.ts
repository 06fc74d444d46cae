// Sessions belong to the browser that made them. For anybody else they don't exist.
import { expect, test, visit } from './fixtures.ts';
import { clip } from './speech.ts';
import { create, waitForEnd } from './sessions.ts';

test('nobody can see or change the sessions of others', async ({ someone, allow }) => {
  allow(/status of 404/); // the browser reports the missing pages below
  const [ann, bob] = [await someone(), await someone()];
  await visit(ann, '/');
  await visit(bob, '/');
  const id = await create(ann, clip('mp3'));

  await visit(ann, '/');
  await expect(ann.getByTestId('session-row')).toHaveCount(1);
  await visit(bob, '/');
  await expect(bob.getByTestId('empty')).toBeVisible();
  await expect(bob.getByTestId('session-row')).toHaveCount(0);

  expect((await bob.goto(`/sessions/${id}`))?.status()).toBe(404);
  await expect(bob.getByTestId('transcript')).toHaveCount(0);
  for (const path of ['', '/audio', '/status', '/status/stream', '/segments', '/transcript.txt', '/transcript.json']) {
    const url = `/api/v1/sessions/${id}${path}`;
    expect((await bob.request.get(url)).status(), `bob: ${path}`).toBe(404);
    // The answer of a stream ends only when its session has ended.
    if (path !== '/status/stream') expect((await ann.request.get(url)).status(), `ann: ${path}`).toBe(200);
  }
  expect((await bob.request.post(`/api/v1/sessions/${id}/cancel`)).status()).toBe(404);
  expect((await bob.request.delete(`/api/v1/sessions/${id}`)).status()).toBe(404);
  expect(((await (await bob.request.get('/api/v1/status')).json()) as { statuses: unknown[] }).statuses).toEqual([]);

  expect(await waitForEnd(ann, id)).toBe('completed');
});
