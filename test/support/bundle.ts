import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import commonjs from '@rollup/plugin-commonjs'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import { rollup, type Plugin } from '@rollup/wasm-node'
import { compile } from 'svelte/compiler'
import ts from 'typescript'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const ENTRY = 'entry'

/** One script of a module, and of the packages that it imports, for a page; paths are the project's. */
export async function bundle(code: string): Promise<string> {
  const build = await rollup({
    input: ENTRY,
    plugins: [
      {
        name: 'entry',
        resolveId: id => (id === ENTRY ? `${ROOT}entry.js` : null),
        load: id => (id === `${ROOT}entry.js` ? code : null)
      },
      sources,
      nodeResolve({
        browser: true,
        extensions: ['.js', '.mjs'],
        rootDir: ROOT,
        exportConditions: ['svelte']
      }),
      // the package is CommonJS, and its types are of what it exports as a module
      (commonjs as unknown as () => Plugin)()
    ],
    // of packages that mark what is for servers
    onwarn: () => {}
  })
  const { output } = await build.generate({
    format: 'iife',
    // packages ask it whether they are in production
    banner: 'var process = { env: { NODE_ENV: "production" } };'
  })
  await build.close()
  return output[0].code
}

/** What frameworks write that browsers don't read. */
const sources: Plugin = {
  name: 'sources',
  transform(code, id) {
    if (id.endsWith('.svelte')) {
      const { js } = compile(code, { filename: basename(id), css: 'injected' })
      return { code: js.code, map: null }
    }
    if (id.endsWith('.jsx')) {
      const { outputText } = ts.transpileModule(code, {
        compilerOptions: {
          ...{ target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
          jsx: ts.JsxEmit.ReactJSX
        }
      })
      return { code: outputText, map: null }
    }
    return null
  }
}
