// Checks that pages look as meant in every browser in which the app starts: Chrome 97, Firefox 102, Safari 16 (2022). The
// nearest mark is what all browsers had by the end of 2021. What is newer needs a fallback in `@supports`, or is named here with
// the reason why it needs none. Run by scripts/test on the sources, and on the styles as they are built.
import css from '@eslint/css';

export default [
  {
    files: ['**/*.css'],
    plugins: { css },
    language: 'css/css',
    rules: {
      'css/use-baseline': [
        'error',
        {
          available: 2021,
          // In all of these browsers, and missing in Safari 15.4 or older only.
          allowSelectors: ['focus-visible'],
          allowPropertyValues: { 'overflow-wrap': ['anywhere'] },
          allowProperties: [
            'accent-color',
            'appearance',
            'color-scheme',
            'scroll-behavior',
            // Corners of an outline are sharp in older Safaris.
            'outline',
            // The text behind the header is seen less or not at all.
            'backdrop-filter',
            // Lines break less evenly, the page is a scrollbar narrower, and phones choose the size of text.
            'text-wrap',
            'scrollbar-gutter',
            'text-size-adjust',
            // What is selected and copied has the times of the lines, too.
            'user-select',
          ],
          // Only browsers that can be asked for it need it.
          allowMediaConditions: ['forced-colors'],
        },
      ],
      'no-restricted-syntax': [
        'error',
        { selector: 'FeatureRange', message: 'Safari 16.3 and Chrome 103 ignore `width < 40rem`: write max-width.' },
      ],
    },
  },
];
