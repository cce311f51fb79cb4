import { readFileSync } from 'node:fs'

/** The prices that the repository has, as they are published, month by month. */
export const QUOTES = readFileSync('data/stocks.csv', 'utf8')
  .trim()
  .split('\n')
  .slice(1)
  .map(row => {
    const [symbol, date, price] = row.split(',')
    return JSON.stringify({ symbol, date, price: Number(price), currency: 'USD' })
  })
