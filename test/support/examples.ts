import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import type { Test } from 'tap'
import type { Address } from './app.ts'
import { eventually, inTime } from './inbox.ts'
import { SECRET } from './tokens.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const PASSWORDS = { alice: 'wonderland', bob: 'builder' }
export type User = keyof typeof PASSWORDS

export interface Server extends Address {
  /** Ends it, with all that it has stored. */
  readonly stop: () => Promise<void>
}

/** The server of the examples, or of one of them, as a process of its own. */
export async function serve(
  t: Test,
  onPort = 0,
  settings: Record<string, string> = {},
  program = 'examples/serve.js'
): Promise<Server> {
  const child = spawn(process.execPath, [program], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], PORT: String(onPort), JWT_SECRET: SECRET, ...settings },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const ended = new Promise<never>((_resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => reject(new Error(`the server has ended (${code})`)))
  })
  const stop = () => {
    child.kill()
    return ended.catch(() => {})
  }
  t.teardown(stop)
  const said = new Promise<string>(resolve =>
    child.stdout.on('data', (text: Buffer) => resolve(String(text)))
  )
  const [url, port] = /^http:\/\/127\.0\.0\.1:(\d+)\n$/.exec(
    await inTime(Promise.race([said, ended]), 'a server')
  )!
  return { url: url.trim(), port: Number(port), stop }
}

/** A page of somebody who signs in for it, in a context of its own. What goes wrong in it fails the test. */
export async function open(t: Test, browser: Browser, user: User, url: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 900, height: 600 } })
  t.teardown(() => context.close())
  const page = watched(t, await context.newPage())
  await page.goto(url)
  await signIn(page, user)
  // and back
  await page.waitForURL(url)
  await isIn(page, 'live')
  return page
}

/** Another tab of a page's browser, which is signed in already. */
export async function newTab(t: Test, page: Page, url: string): Promise<Page> {
  const tab = watched(t, await page.context().newPage())
  await tab.goto(url)
  await isIn(tab, 'live')
  return tab
}

/** Fills in the login page, which the page shows, or is being led to. */
export async function signIn(page: Page, user: User, password: string = PASSWORDS[user]): Promise<void> {
  await page.fill('#login [name=user]', user)
  await page.fill('#login [name=password]', password)
  await page.click('#login .main')
}

function watched(t: Test, page: Page): Page {
  page.setDefaultTimeout(60_000)
  page.on('pageerror', error => t.fail(error.message))
  page.on('console', message => {
    if (/content security policy/i.test(message.text())) t.fail(message.text())
  })
  return page
}

export async function isIn(page: Page, state: string): Promise<void> {
  await page.waitForSelector(`#state[data-state=${state}]`)
}

export function texts(page: Page, selector: string): Promise<string[]> {
  return page.locator(selector).allTextContents()
}

/** Waits until the texts of these elements are as expected. */
export async function shows(
  t: Test,
  page: Page,
  selector: string,
  expected: readonly string[]
): Promise<void> {
  const shown = await eventually(
    () => texts(page, selector),
    found => String(found) === String(expected),
    `${selector}: ${expected.join(' | ')}`
  )
  t.strictSame(shown, expected)
}
