"""Texts on the algorithm and on what the model is good for."""

WORDS = {
    "algorithm": ("3. Algorithm and utility", "3. Verfahren und Nutzen"),
    "mechanism": ("Mechanism", "Mechanismus"),
    "mechanism.text": (
        "Each step is a Poisson-subsampled Gaussian mechanism (Abadi et al. 2016). Every {u_one} "
        "joins a step at random, with the <i>sample rate</i> as its probability. Its gradient is "
        "scaled down to at most the <i>max. norm</i>. Noise is added to the sum of the gradients; its "
        "standard deviation is the <i>noise multiplier</i> times the <i>max. norm</i>. The sum is "
        "divided by the <i>expected batch</i>, a public constant.",
        "Jeder Schritt ist ein Gauß-Mechanismus auf einer Poisson-Stichprobe (Abadi et al. 2016). "
        "{u_every} nimmt zufällig an einem Schritt teil, mit der <i>Ziehungsrate</i> als "
        "Wahrscheinlichkeit. Der zugehörige Gradient wird höchstens auf die <i>max. Norm</i> "
        "verkleinert. Zur Summe der Gradienten kommt Rauschen; seine Standardabweichung ist der "
        "<i>Rauschfaktor</i> mal der <i>max. Norm</i>. Die Summe wird durch die <i>erwartete "
        "Stapelgröße</i> geteilt, eine öffentliche Konstante.",
    ),
    "mechanism.shared": (
        "Where noise is <i>shared by</i> several sites, each adds noise of one part in so many of "
        "that variance, and the noise of all honest sites adds up to it.",
        "Wird das Rauschen <i>geteilt durch</i> mehrere Standorte, so fügt jeder den entsprechenden "
        "Bruchteil dieser Varianz hinzu; das Rauschen aller redlichen Standorte ergibt zusammen das "
        "Ganze.",
    ),
    "mechanism.spare": (
        "The phase <i>spare</i> may repeat any round and is charged like the most expensive one.",
        "Die Phase <i>spare</i> (Reserve) kann jede Runde wiederholen und wird wie die teuerste "
        "belastet.",
    ),
    "mechanism.balance": (
        "<i>class-balance</i> means that a site counted its classes once, before the first round, "
        "with noise of that standard deviation on each count. It weights its losses with these counts "
        "and sent no count.",
        "<i>class-balance</i> heißt: Ein Standort hat vor der ersten Runde einmal seine Klassen "
        "gezählt, mit Rauschen dieser Standardabweichung auf jeder Zählung. Damit gewichtet er seine "
        "Verluste; gesendet hat er keine Zählung.",
    ),
    "mechanism.evaluation": (
        "<i>evaluation</i> is the measurement of the final model: the counts of all classes and "
        "scores are released together, with the noise of one Gaussian mechanism without sampling. Its "
        "records are charged like all others, so that nothing depends on how a site divides them.",
        "<i>evaluation</i> ist die Messung des fertigen Modells: Die Zählungen aller Klassen und "
        "Punktwerte werden zusammen freigegeben, mit dem Rauschen eines Gauß-Mechanismus ohne "
        "Stichprobe. Ihre Datensätze werden wie alle anderen belastet; von der Aufteilung am Standort "
        "hängt daher nichts ab.",
    ),
    "column.name": ("phase", "Phase"),
    "column.rounds": ("rounds", "Runden"),
    "column.steps": ("steps", "Schritte"),
    "column.sample_rate": ("sample rate", "Ziehungsrate"),
    "column.noise_multiplier": ("noise multiplier", "Rauschfaktor"),
    "column.max_grad_norm": ("max. norm", "max. Norm"),
    "column.expected_batch_size": ("expected batch", "erwartete Stapelgröße"),
    "column.honest": ("noise shared by", "Rauschen geteilt durch"),
    "work": ("Admitted and trained", "Bewilligt und trainiert"),
    "work.charged": ("steps admitted and charged", "bewilligte und belastete Schritte"),
    "work.steps": ("steps trained", "trainierte Schritte"),
    "work.rounds": ("rounds trained", "trainierte Runden"),
    "work.repeated": ("rounds repeated", "wiederholte Runden"),
    "after": ("Post-processing and settings", "Nachverarbeitung und Einstellungen"),
    "after.processing": ("post-processing", "Nachverarbeitung"),
    "after.text": (
        "the coordinator averages what the sites send{masked}, with momentum {momentum} and rate "
        "{rate}{last}{measured}. It costs no &epsilon;",
        "die Koordinationsstelle mittelt, was die Standorte senden{masked}, mit Momentum {momentum} "
        "und Rate {rate}{last}{measured}. Das kostet kein &epsilon;",
    ),
    "after.masked": (", of which it learns the sum alone", " (sie erfährt nur die Summe)"),
    "after.last": (
        ", and averages the models of the last {share} of a phase's rounds",
        ", und mittelt die Modelle der letzten {share} der Runden einer Phase",
    ),
    "after.no-last": (
        "; the last model of a phase is taken as it is",
        "; das letzte Modell einer Phase wird unverändert übernommen",
    ),
    "after.measured": (
        "; figures are fitted to noisy counts",
        "; Kennzahlen werden an verrauschte Zählungen angepasst",
    ),
    "rate.sites": ("equal to the number of sites", "gleich der Zahl der Standorte"),
    "rate.sqrt-sites": (
        "equal to the root of the number of sites",
        "gleich der Wurzel aus der Zahl der Standorte",
    ),
    "after.settings": ("choice of the settings", "Wahl der Einstellungen"),
    "after.listed": (
        "the run lists its phases itself",
        "die Phasen sind im Lauf selbst aufgeführt",
    ),
    "after.people": ("how people chose them", "Auswahl durch Menschen"),
    "results": ("Results", "Ergebnisse"),
    "measured": ("Measured at the sites, with noise", "An den Standorten gemessen, mit Rauschen"),
    "measured.text": (
        "At the end each site measured the final model once on its {split} records, which no step was "
        "trained on. For each class or label it sent how many records have which score, with noise: "
        "by itself {epsilon}, a part of the &epsilon; in section 1. All figures follow from these "
        "counts. An interval holds its value with a probability of at least 95&nbsp;%, over the "
        "choice of the records and the noise. No figure stands where there are too few records: fewer "
        "than {least}, or fewer than the noise hides; nor where most scores are so similar that they "
        "fall into one bin.",
        "Zum Schluss hat jeder Standort das fertige Modell einmal auf seinen {split} gemessen, mit "
        "denen kein Schritt trainiert wurde. Für jede Klasse oder jeden Befund hat er gesendet, wie "
        "viele Datensätze welchen Punktwert haben, mit Rauschen: für sich genommen {epsilon}, ein "
        "Teil des &epsilon; in Abschnitt 1. Alle Kennzahlen folgen aus diesen Zählungen. Ein "
        "Intervall enthält seinen Wert mit einer Wahrscheinlichkeit von mindestens 95&nbsp;%, über "
        "die Auswahl der Datensätze und das Rauschen. Keine Zahl steht dort, wo es zu wenige "
        "Datensätze gibt: weniger als {least} oder weniger, als das Rauschen verbirgt; ebenso wenig, "
        "wo die meisten Punktwerte so ähnlich sind, dass sie in ein Fach fallen.",
    ),
    "split.val": ("validation", "Validierungsdaten"),
    "split.test": ("test", "Testdaten"),
    "measured.question": ("question", "Frage"),
    "measured.records": ("records that<br>show it / do not", "Datensätze mit /<br>ohne Befund"),
    "measured.sensitivity": (
        "sensitivity<br>at probability &frac12;",
        "Sensitivität bei<br>Wahrscheinlichkeit &frac12;",
    ),
    "measured.specificity": (
        "specificity<br>at probability &frac12;",
        "Spezifität bei<br>Wahrscheinlichkeit &frac12;",
    ),
    "measured.sensitivity-at": (
        "sensitivity at<br>90&nbsp;% specificity",
        "Sensitivität bei<br>90&nbsp;% Spezifität",
    ),
    "measured.few": ("too few", "zu wenige"),
    "measured.all": ("all sites", "alle Standorte"),
    "measured.class": ("{task}, class {n}", "{task}, Klasse {n}"),
    "interval": ("{low} to {high}", "{low} bis {high}"),
    "measured.figure": (
        "AUC of each class against all others, or of each label.",
        "AUC jeder Klasse gegen alle anderen oder jedes Befunds.",
    ),
    "measured.figure-all": (
        "AUC of each class against all others, or of each label, at all sites of a kind of image "
        "together.",
        "AUC jeder Klasse gegen alle anderen oder jedes Befunds, an allen Standorten einer Art von "
        "Bildern zusammen.",
    ),
    "outlined": ("How well do outlines overlap?", "Wie gut decken sich Umrisse?"),
    "outlined.text": (
        "Dice overlap of the model's outlines with those of the labels, as the mean over images that "
        "have an outline in one of them: 1 where both are the same, 0 where none is found. The mean "
        "follows from noisy counts, too.",
        "Dice-Überlappung der Umrisse des Modells mit denen der Annotationen, als Mittel über die "
        "Bilder, die in einem von beiden einen Umriss haben: 1, wo beide gleich sind, 0, wo keiner "
        "gefunden wird. Auch das Mittel folgt aus verrauschten Zählungen.",
    ),
    "outlined.task": ("outline", "Umriss"),
    "outlined.images": ("images", "Bilder"),
    "outlined.mean": ("mean Dice overlap", "mittlere Dice-Überlappung"),
    "judged": ("Are the probabilities right?", "Stimmen die Wahrscheinlichkeiten?"),
    "judged.text": (
        "Of the records to which the model gives a probability in a range, the share that shows the "
        "finding. Where the interval does not hold the mean probability, the model says too much or "
        "too little.",
        "Anteil mit Befund unter den Datensätzen, denen das Modell eine Wahrscheinlichkeit in einem "
        "Bereich zuweist. Enthält das Intervall die mittlere Wahrscheinlichkeit nicht, so gibt das "
        "Modell zu viel oder zu wenig an.",
    ),
    "judged.records": ("records", "Datensätze"),
    "judged.mean": ("mean probability", "mittlere Wahrscheinlichkeit"),
    "judged.share": ("share that shows it", "Anteil mit Befund"),
    "measured.none": (
        "No site sent counts; section 6 says why.",
        "Kein Standort hat Zählungen gesendet; Abschnitt 6 nennt die Gründe.",
    ),
    "exact": ("Exact values", "Exakte Werte"),
    "table.auc": ("Test AUC", "AUC (Testdaten)"),
    "table.accuracy": ("Test accuracy", "Genauigkeit (Testdaten)"),
    "table.dice": ("Test Dice overlap", "Dice-Überlappung (Testdaten)"),
    "table.pixels": ("Test accuracy of pixels", "Genauigkeit der Pixel (Testdaten)"),
    "table.mean-sites": ("mean over sites", "Mittel über Standorte"),
    "table.mean-tasks": ("mean over tasks", "Mittel über Aufgaben"),
    "table.of-sites": ("{n} of {all} sites", "{n} von {all} Standorten"),
    "table.of-tasks": ("{n} of {all} tasks", "{n} von {all} Aufgaben"),
    "results.figure": (
        "Results on the test split of each site. <b>federated-dp</b>: this run.",
        "Ergebnisse auf den Testdaten jedes Standorts. <b>federated-dp</b>: dieser Lauf.",
    ),
    "results.baselines": (
        "<b>heads-only-dp</b>, <b>local-heads-only-dp</b>: only heads, on the features of the public "
        "start, together or each site alone; <b>without-...-dp</b>: this run without a part; "
        "<b>local-dp</b>: each site alone; all of them at the same &epsilon;. <b>local-plain</b>, "
        "<b>federated-plain</b> and <b>centralised-plain</b> (all records pooled): without privacy. "
        "All models but the first are baselines, outside the privacy ledger.",
        "<b>heads-only-dp</b>, <b>local-heads-only-dp</b>: nur Antwortschichten auf den Merkmalen des "
        "öffentlichen Startmodells, gemeinsam oder jeder Standort allein; <b>without-...-dp</b>: "
        "dieser Lauf ohne einen Teil; <b>local-dp</b>: jeder Standort allein; alle bei demselben "
        "&epsilon;. <b>local-plain</b>, <b>federated-plain</b> und <b>centralised-plain</b> (alle "
        "Datensätze an einem Ort): ohne Datenschutzgarantie. Alle Modelle außer dem ersten sind "
        "Vergleichsmodelle außerhalb des Budgetbuchs.",
    ),
    "results.shared": (
        "Baselines have no masks, so that each site adds all of its noise: a difference to this run "
        "holds what sharing the noise brings, too.",
        "Vergleichsmodelle haben keine Masken, sodass jeder Standort sein gesamtes Rauschen "
        "hinzufügt: Ein Unterschied zu diesem Lauf enthält auch den Gewinn aus geteiltem Rauschen.",
    ),
    "results.none": (
        "Metrics stayed at the sites. A run with {setting} measures its final model there and reports "
        "it with noise.",
        "Die Kennzahlen blieben an den Standorten. Ein Lauf mit {setting} misst sein fertiges Modell "
        "dort und berichtet darüber mit Rauschen.",
    ),
    "even": ("Effect by site and group", "Wirkung nach Standort und Gruppe"),
    "even.text": (
        "{metric} of this run: lowest {low} at {low_site}, highest {high} at {high_site}.",
        "{metric} dieses Laufs: am niedrigsten {low} ({low_site}), am höchsten {high} ({high_site}).",
    ),
    "even.unknown": (
        "No figure by site is known.",
        "Nach Standorten getrennte Kennzahlen sind nicht bekannt.",
    ),
    "even.groups": (
        "Noise costs rare classes and small groups more accuracy than others. No run looks at groups "
        "of patients by itself. People state: {groups}",
        "Rauschen kostet seltene Klassen und kleine Gruppen mehr Genauigkeit als andere. Kein Lauf "
        "betrachtet von sich aus Patientengruppen. Angabe dazu: {groups}",
    ),
    "fitted": (
        "Heads that sites fitted for themselves",
        "Antwortschichten für den eigenen Gebrauch",
    ),
    "fitted.text": (
        "After the run these sites fitted a head of their own on the released model, with the given "
        "number of labelled images, as <code>fedmedformer site finetune</code> does. <b>These heads "
        "have no differential privacy.</b> They are for the site's own use, nothing of them left the "
        "site, and no ledger counts them.",
        "Nach dem Lauf haben diese Standorte auf dem freigegebenen Modell eine eigene Antwortschicht "
        "angepasst, mit der angegebenen Zahl befundeter Bilder, wie es <code>fedmedformer site "
        "finetune</code> tut. <b>Für diese Schichten gilt keine Differential Privacy.</b> Sie dienen "
        "allein dem Standort, nichts davon hat ihn verlassen, und kein Budgetbuch zählt sie.",
    ),
    "fitted.on": ("fitted on", "angepasst auf"),
    "fitted.labelled": ("labelled images", "befundete Bilder"),
    "fitted.metric": ("metric", "Kennzahl"),
    "fitted.joined": ("took no part in the training", "nahm am Training nicht teil"),
    "fitted.took": ("took part", "nahm teil"),
    "loss": ("Training loss", "Verlust im Training"),
    "loss.figure": (
        "Mean loss of each round, measured without noise. Each phase has its own mix of objectives, "
        "so losses of different phases cannot be compared.",
        "Mittlerer Verlust jeder Runde, ohne Rauschen gemessen. Jede Phase hat ihre eigene Mischung "
        "von Zielen; Verluste verschiedener Phasen sind daher nicht vergleichbar.",
    ),
    "loss.none": (
        "No training loss left a site.",
        "Kein Trainingsverlust hat einen Standort verlassen.",
    ),
    "pictures": ("How the shared model sees images", "Wie das gemeinsame Modell Bilder sieht"),
    "pictures.text": (
        "The server drew these pictures from the final shared model and from phantom images, which a "
        "program made. They show no patient and reveal nothing about any record. Every site has this "
        "model.",
        "Der Server hat diese Bilder aus dem fertigen gemeinsamen Modell und aus Phantombildern "
        "gezeichnet, die ein Programm erzeugt. Sie zeigen keine Person und verraten nichts über einen "
        "Datensatz. Jeder Standort hat dieses Modell.",
    ),
    "pictures.kinds": (
        "The server drew these pictures from the final shared model of each kind of image and from "
        "phantom images, which a program made. They show no patient and reveal nothing about any "
        "record. Every site with that kind of image has this model.",
        "Der Server hat diese Bilder aus dem fertigen gemeinsamen Modell jeder Art von Bildern und "
        "aus Phantombildern gezeichnet, die ein Programm erzeugt. Sie zeigen keine Person und "
        "verraten nichts über einen Datensatz. Jeder Standort mit dieser Art von Bildern hat dieses "
        "Modell.",
    ),
    "pictures.none": ("No pictures were drawn.", "Es wurden keine Bilder gezeichnet."),
}
