import { fileURLToPath } from 'node:url'
import { readRows, type Row } from '../../recording.ts'
import type { NewQuote } from '../tickers.ts'

const DATA = new URL('../../../data/', import.meta.url)

/** What the symbols begin with: nobody who tries `AAPL` has it overwritten a second later. */
const PREFIX = 'DEMO:'

/** A recorded price of a symbol, on a day. */
export interface Price {
  readonly symbol: string
  readonly date: string
  readonly price: number
}

/** A series for each symbol, oldest first: months for the stocks, days for the index. */
export async function readPrices(): Promise<Price[][]> {
  const series = new Map<string, Price[]>()
  const add = (price: Price) => {
    const known = series.get(price.symbol)
    if (known) known.push(price)
    else series.set(price.symbol, [price])
  }
  for await (const row of rowsOf('stocks.csv')) {
    add({ symbol: text(row, 'symbol'), date: text(row, 'date'), price: number(row, 'price') })
  }
  for await (const row of rowsOf('sp500-2000.csv')) {
    add({ symbol: '^GSPC', date: text(row, 'date'), price: number(row, 'close') })
  }
  return [...series.values()]
}

function rowsOf(name: string): AsyncGenerator<Row> {
  return readRows(fileURLToPath(new URL(name, DATA)))
}

function text({ columns }: Row, name: string): string {
  return JSON.parse(columns.get(name)!) as string
}

function number({ columns }: Row, name: string): number {
  return Number(columns.get(name))
}

/** As it is published: said to be recorded. */
export function quote({ symbol, price, date }: Price): NewQuote {
  const name = PREFIX + symbol
  return { symbol: name, json: JSON.stringify({ symbol: name, price, date, recorded: true }) }
}
